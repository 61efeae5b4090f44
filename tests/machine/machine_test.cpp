// The catalogue, names people type, flags, nvidia-smi texts, sysfs.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "machine/probe.hpp"

namespace dryfit {
namespace {

TEST(Catalogue, everyRowIsSaneAndSourced) {
  EXPECT_GE(gpu_catalogue().size(), 150U);
  std::set<std::string> names;
  for (const GpuKind& g : gpu_catalogue()) {
    EXPECT_TRUE(names.insert(g.name).second) << g.name << " twice";
    EXPECT_FALSE(g.source.empty()) << g.name;
    EXPECT_GE(g.total, gib(1)) << g.name;
    EXPECT_LE(g.total, gib(600)) << g.name;
    EXPECT_GE(g.driver_reserve, Bytes(0)) << g.name;
    EXPECT_LT(g.driver_reserve, g.unified ? gib(16) : gib(2)) << g.name;
    const auto found = find_gpu(g.name, g.total);
    ASSERT_TRUE(found) << g.name;
    EXPECT_EQ(found->total, g.total) << g.name << " -> " << found->name;
  }
}

TEST(Catalogue, findsWhatPeopleType) {
  const std::pair<const char*, const char*> names[] = {{"4090", "NVIDIA GeForce RTX 4090"}, {"RTX 4090", "NVIDIA GeForce RTX 4090"}, {"rtx-4090", "NVIDIA GeForce RTX 4090"}, {"h100", "NVIDIA H100 80GB HBM3"},
                                                       {"H100 80GB", "NVIDIA H100 80GB HBM3"}, {"h200", "NVIDIA H200"}, {"b200", "NVIDIA B200"}, {"a10", "NVIDIA A10"}, {"3090", "NVIDIA GeForce RTX 3090"},
                                                       {"3080 12gb", "NVIDIA GeForce RTX 3080 12GB"}, {"t4", "Tesla T4"}, {"l4", "NVIDIA L4"}, {"mi300x", "AMD Instinct MI300X"},
                                                       {"rtx 3060 laptop", "NVIDIA GeForce RTX 3060 Laptop GPU"}, {"4090 mobile", "NVIDIA GeForce RTX 4090 Laptop GPU"}, {"rtx 6000 ada", "NVIDIA RTX 6000 Ada Generation"},
                                                       {"rtx 2000 ada laptop", "NVIDIA RTX 2000 Ada Generation Laptop GPU"}, {"5060 ti 16g", "NVIDIA GeForce RTX 5060 Ti 16GB"}, {"a100 80 GB pcie", "NVIDIA A100 80GB PCIe"},
                                                       {"rtx pro 6000 blackwell workstation", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"}, {"rtx pro 6000 max-q", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"}};
  for (const auto& [typed, name] : names) {
    const auto g = find_gpu(typed);
    ASSERT_TRUE(g) << typed << ": " << g.error().hint;
    EXPECT_EQ(g->name, name) << typed;
  }
  EXPECT_NEAR(find_gpu("a100 40gb")->total.gib(), 40, 0.5);
  EXPECT_NEAR(find_gpu("a100 80gb")->total.gib(), 80, 0.5);
  EXPECT_NEAR(find_gpu("rtx pro 6000")->total.gib(), 95.6, 0.5);  // three editions, one size
  EXPECT_FALSE(find_gpu("rtx 3080")->note.empty());  // two sizes: says which it took
  EXPECT_NEAR(find_gpu("rtx 3080", gib(12))->total.gib(), 12, 0.1);
  const auto wrong = find_gpu("h10O");
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().hint.find("did you mean"), std::string::npos);
  EXPECT_FALSE(find_gpu(""));
}

TEST(Catalogue, findsWhatListsOfOffersWrite) {
  const std::pair<const char*, const char*> names[] = {{"RTX4090", "NVIDIA GeForce RTX 4090"}, {"4070ti super", "NVIDIA GeForce RTX 4070 Ti SUPER"}, {"4070TiSuper", "NVIDIA GeForce RTX 4070 Ti SUPER"}, {"RTX_4070S_Ti", "NVIDIA GeForce RTX 4070 Ti SUPER"},
                                                       {"4080S", "NVIDIA GeForce RTX 4080 SUPER"}, {"L40S", "NVIDIA L40S"}, {"RTX_6000Ada", "NVIDIA RTX 6000 Ada Generation"}, {"RTX6000-Ada", "NVIDIA RTX 6000 Ada Generation"}, {"RTXA6000", "NVIDIA RTX A6000"},
                                                       {"RTXPRO6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition"}, {"RTX_PRO_6000_WS", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"}, {"a100-80", "NVIDIA A100-SXM4-80GB"}, {"RTX 3060 12", "NVIDIA GeForce RTX 3060 12GB"},
                                                       {"A100 80GB PCIe", "NVIDIA A100 80GB PCIe"}, {"A100-SXM-40GB", "NVIDIA A100-SXM4-40GB"}, {"NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 Laptop GPU"}, {"3080ti laptop", "NVIDIA GeForce RTX 3080 Ti Laptop GPU"},
                                                       {"H100 NVL", "NVIDIA H100 NVL"}, {"nvidia-tesla-t4", "Tesla T4"}, {"nvidia-h100-mega-80gb", "NVIDIA H100 80GB HBM3"}, {"NVIDIA A100 Tensor Core GPU 80GB", "NVIDIA A100-SXM4-80GB"}, {"AMD Instinct MI300X OAM", "AMD Instinct MI300X"},
                                                       {"Colab L4", "NVIDIA L4"}, {"rx7900xtx", "AMD Radeon RX 7900 XTX"}, {"gtx1080ti", "NVIDIA GeForce GTX 1080 Ti"}, {"1660s", "NVIDIA GeForce GTX 1660 SUPER"}, {"w7900", "AMD Radeon PRO W7900"}, {"max 1550", "Intel Data Center GPU Max 1550"}, {"RTX 2000", "NVIDIA RTX 2000 Ada Generation"}};
  for (const auto& [typed, name] : names) {
    const auto g = find_gpu(typed);
    ASSERT_TRUE(g) << typed << ": " << g.error().hint;
    EXPECT_EQ(g->name, name) << typed;
  }
  EXPECT_EQ(find_gpu("mi300").error().hint, "did you mean 'AMD Instinct MI300A' or 'AMD Instinct MI300X'?");
  EXPECT_FALSE(find_gpu("a100 30"));
}

// A name that means cards of several sizes says which was taken, and each name that it offers instead finds a card of the size it is offered for.
TEST(Catalogue, saysWhichSizeItTookAndHowToNameTheOthers) {
  const std::pair<const char*, const char*> said[] = {
      {"a100", "'a100' comes in several sizes: took NVIDIA A100-PCIE-40GB with 40 GiB; others: --gpu \"a100 64gb\", \"a100 80gb\""},
      {"RTX 3060", "'RTX 3060' comes in several sizes: took NVIDIA GeForce RTX 3060 8GB with 8 GiB; others: --gpu \"RTX 3060 12gb\""},
      {"v100", "'v100' comes in several sizes: took Tesla V100-PCIE-16GB with 16 GiB; others: --gpu \"v100 32gb\""},
      {"gh200", "'gh200' comes in several sizes: took NVIDIA GH200 480GB with 96 GiB; others: --gpu \"gh200 144gb\""},
      {"a100 sxm", "'a100 sxm' comes in several sizes: took NVIDIA A100-SXM4-40GB with 40 GiB; others: --gpu \"a100 sxm 64gb\", \"a100 sxm 80gb\""},
      {"rtx 6000", "'rtx 6000' comes in several sizes: took Quadro RTX 6000 with 23 GiB; others: --gpu \"rtx 6000 48gb\", \"rtx 6000 96gb\""}};
  for (const auto& [typed, note] : said) EXPECT_EQ(find_gpu(typed)->note, note);
  for (const char* one : {"a100 40gb", "A100-SXM4-80GB", "rtx 3060 12gb", "h100", "H100 PCIe", "h100 nvl", "h200", "gb200", "rtx pro 6000", "L40S", "t4", "MI300X", "4090", "RTX 4090 Laptop", "3060 ti", "m1", "quadro rtx 6000", "rtx 6000 ada", "Tesla V100-SXM2-32GB"}) {
    EXPECT_EQ(find_gpu(one)->note, "") << one;
  }
  EXPECT_EQ(find_gpu("a100", gib(80))->note, "");
  for (const GpuKind& g : gpu_catalogue()) {
    for (const std::string& alias : g.aliases) {
      std::string note = find_gpu(alias)->note;
      for (std::size_t at = note.find('"'); at != std::string::npos; at = note.find('"')) {
        const std::size_t end = note.find('"', at + 1);
        const std::string other = note.substr(at + 1, end - at - 1);
        const auto found = find_gpu(other);
        ASSERT_TRUE(found) << other;
        if (other.ends_with("gb")) {
          EXPECT_NEAR(found->total.gib(), std::stod(other.substr(other.rfind(' '))), 1) << other;
        }
        note.erase(0, end + 1);
      }
    }
  }
}

TEST(Instances, haveACardOfTheCatalogueAndASource) {
  std::set<std::string> names;
  EXPECT_GE(instances().size(), 180U);
  for (const Instance& i : instances()) {
    EXPECT_TRUE(names.insert(i.name).second) << i.name << " twice";
    EXPECT_FALSE(i.source.empty() || i.provider.empty()) << i.name;
    EXPECT_TRUE(i.gpus >= 1 && i.gpus <= 16) << i.name;
    EXPECT_EQ(find_gpu(i.gpu).value_or(GpuKind{}).name, i.gpu) << i.name;
    const auto m = machine_from_flags({i.name, std::nullopt, std::nullopt, std::nullopt});
    ASSERT_TRUE(m) << i.name;
    EXPECT_EQ(m->gpu.name, i.gpu) << i.name;
    EXPECT_EQ(m->gpus, i.gpus) << i.name;
  }
}

TEST(Catalogue, usableMemoryIsWhatTorchShows) {  // capacities printed by PyTorch on Linux, GiB
  struct Range { const char* gpu; double low, high; };
  for (const Range& r : {Range{"4090", 23.41, 23.70}, Range{"h100", 79.10, 79.33}, Range{"a100 40gb", 39.38, 39.59}, Range{"t4", 14.5, 14.76}, Range{"h200", 139.7, 139.9}, Range{"5090", 31.3, 31.5}, Range{"b200", 178.3, 178.4}}) {
    const auto g = find_gpu(r.gpu);
    ASSERT_TRUE(g);
    const double usable = (g->total - g->driver_reserve).gib();
    EXPECT_GE(usable, r.low) << r.gpu;
    EXPECT_LE(usable, r.high) << r.gpu;
  }
}

TEST(Flags, takeWhatPeopleHaveAtHand) {
  const auto found = [](const char* name, std::optional<std::int64_t> gpus = std::nullopt) {
    const auto m = machine_from_flags({name, gpus, std::nullopt, std::nullopt});
    return m ? std::to_string(m->gpus) + " " + m->gpu.name + " " + std::to_string(m->total.count >> 20) : m.error().code;
  };
  for (const char* name : {"8xH100", "8x H100", "H100 x8", "8 x NVIDIA H100 80GB HBM3"}) EXPECT_EQ(found(name), "8 NVIDIA H100 80GB HBM3 81559") << name;
  for (const char* name : {"2x4090", "4090x2"}) EXPECT_EQ(found(name), "2 NVIDIA GeForce RTX 4090 24564") << name;
  EXPECT_EQ(found("8xH100", 1), "1 NVIDIA H100 80GB HBM3 81559");  // a command that uses one of them
  EXPECT_EQ(found("MI300X"), "1 AMD Instinct MI300X 196608");
  EXPECT_EQ(found("NVIDIA GeForce RTX 3060, 12288 MiB"), "1 NVIDIA GeForce RTX 3060 12GB 12288");
  EXPECT_EQ(found("NVIDIA GeForce RTX 4090, 24564 MiB"), "1 NVIDIA GeForce RTX 4090 24564");
  EXPECT_EQ(found("GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-0)"), "1 NVIDIA A100-SXM4-80GB 81920");
  EXPECT_EQ(found("H100 MIG 3g.40gb"), "1 NVIDIA H100 80GB HBM3 MIG 3g.40gb 40448");
  EXPECT_EQ(found("A100-SXM4-80GB MIG 2g.20gb"), "1 NVIDIA A100-SXM4-80GB MIG 2g.20gb 19968");
  EXPECT_EQ(found("A100 MIG 7g.80gb"), "unknown_memory");
  EXPECT_EQ(found("H100-SXM5-80GB"), "1 NVIDIA H100 80GB HBM3 81559");
  EXPECT_EQ(found("H100 SXM5"), "1 NVIDIA H100 80GB HBM3 81559");
  EXPECT_EQ(found("A100-SXM-80GB"), "1 NVIDIA A100-SXM4-80GB 81920");
  EXPECT_EQ(found("A100-SXM-64GB"), "1 NVIDIA A100-SXM-64GB 65536");
  EXPECT_EQ(found("0xH100"), "bad_value");
  EXPECT_EQ(found("p4d.24xlarge"), "8 NVIDIA A100-SXM4-40GB 40960");
  EXPECT_EQ(found("ml.p5.48xlarge"), "8 NVIDIA H100 80GB HBM3 81559");
  EXPECT_EQ(found("p5.48xlarge", 4), "4 NVIDIA H100 80GB HBM3 81559");
  for (const char* name : {"Standard_ND96isr_H100_v5", "nd96isr_h100_v5", "ND96isr H100 v5"}) EXPECT_EQ(found(name), "8 NVIDIA H100 80GB HBM3 81559") << name;
  for (const char* name : {"T4 x2", "Kaggle T4 x2", "2x T4", "T4:2", "gpu:t4:2"}) EXPECT_EQ(found(name), "2 Tesla T4 15360") << name;
  EXPECT_EQ(found("gpu_4x_b300"), "4 NVIDIA B300 SXM6 AC 275040");
  EXPECT_EQ(found("A100-80GB:4"), "4 NVIDIA A100-SXM4-80GB 81920");
  const auto m = machine_from_flags({"p4d.24xlarge", 16, std::nullopt, std::nullopt});
  EXPECT_EQ(m->notes, (std::vector<std::string>{"p4d.24xlarge (AWS) has 8 x NVIDIA A100-SXM4-40GB", "16 GPUs are used, more than the 8 named"}));
  EXPECT_EQ(machine_from_flags({"p5.24xlarge", std::nullopt, std::nullopt, std::nullopt}).error().hint, "did you mean 'p5.4xlarge' or 'p5.48xlarge'?");
  EXPECT_EQ(machine_from_flags({"a3-megagpu-4g", std::nullopt, std::nullopt, std::nullopt}).error().hint, "did you mean 'a3-megagpu-8g'?");
  for (const char* name : {"x", "8x", "8xnothing", "", ",", "MIG 1g.10gb", "4090, MiB", "GPU 0: "}) EXPECT_EQ(found(name), "unknown_gpu") << name;
}

TEST(Flags, makeAMachine) {
  const auto m = machine_from_flags({"rtx 4090", 2, std::nullopt, gib(1)});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->gpus, 2);
  EXPECT_EQ(m->usable(), m->total - m->driver_reserve - gib(1));
  EXPECT_TRUE(machine_from_flags({std::nullopt, 1, gib(24), std::nullopt}));
  for (const MachineFlags& bad : {MachineFlags{std::nullopt, 1, std::nullopt, std::nullopt}, MachineFlags{"4090", 0, std::nullopt, std::nullopt}, MachineFlags{"4090", 1, std::nullopt, gib(100)}, MachineFlags{std::nullopt, 1, mib(1), std::nullopt}}) {
    const auto r = machine_from_flags(bad);
    ASSERT_FALSE(r);
    EXPECT_FALSE(r.error().hint.empty());
  }
}

TEST(NvidiaSmi, queryForm) {
  const auto p = parse_nvidia_smi("0, NVIDIA GeForce RTX 4090, GPU-1, 00000000:01:00.0, 24564, 480, 1200, 22884, 8.9, 3, [N/A], [N/A], 550.54\n"
                                  "1, NVIDIA GeForce RTX 4090, GPU-2, 00000000:02:00.0, 24564, 480, 10, 24074, 8.9, 0, [N/A], [N/A], 550.54\n");
  ASSERT_TRUE(p);
  const auto m = machine_from_probe(*p, {});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->gpus, 2);
  EXPECT_EQ(m->usable(), mib(24564 - 480 - 1200));  // the busier card decides
  EXPECT_EQ(m->gpu.compute_major, 8);
}

TEST(NvidiaSmi, nameAndMemoryWithUnits) {
  const auto p = parse_nvidia_smi("name, memory.total [MiB]\nNVIDIA GeForce RTX 3080, 12288 MiB\n");
  ASSERT_TRUE(p);
  const auto m = machine_from_probe(*p, {});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->total, mib(12288));
}

TEST(NvidiaSmi, tableForm) {
  const auto p = parse_nvidia_smi("| NVIDIA-SMI 550.00   Driver Version: 550.00   CUDA Version: 12.4 |\n|===|\n|   0  NVIDIA H100 80GB HBM3          On  |   00000000:1B:00.0 Off |  0 |\n"
                                  "| N/A   30C    P0    70W / 700W |       4MiB /  81559MiB |   0%  Default |\n");
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_EQ(p->gpus[0].name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(p->gpus[0].total, mib(81559));
}

TEST(NvidiaSmi, unequalCardsAndErrors) {
  const auto p = parse_nvidia_smi("index, name, memory.total [MiB]\n0, NVIDIA A100-SXM4-40GB, 40960 MiB\n1, NVIDIA A100-SXM4-40GB, 40960 MiB\n2, NVIDIA T1000, 4096 MiB\n");
  ASSERT_TRUE(p);
  const auto m = machine_from_probe(*p, {});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->gpus, 2);
  EXPECT_FALSE(m->notes.empty());
  for (const char* text : {"", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "No devices were found", "Failed to initialize NVML: Driver/library version mismatch"}) {
    const auto r = parse_nvidia_smi(text);
    ASSERT_FALSE(r) << text;
    EXPECT_NE(r.error().hint.find("--gpu"), std::string::npos);
  }
}

TEST(NvidiaSmi, unifiedMemoryTakesWhatTheHostHas) {
  ProbeResult p;
  GpuReading g;
  g.name = "NVIDIA GB10";
  g.unified = true;
  p.gpus.push_back(g);
  EXPECT_FALSE(machine_from_probe(p, {}));
  p.host_available = gib(100);
  EXPECT_EQ(machine_from_probe(p, {})->usable(), gib(100));
}

TEST(NvidiaSmi, migSlicesReplaceTheirParent) {
  ProbeResult p;
  GpuReading parent;
  parent.name = "NVIDIA H100 80GB HBM3";
  parent.total = mib(81559);
  parent.mig_parent = true;
  GpuReading slice = parent;
  slice.mig_parent = false;
  slice.mig_slice = true;
  slice.total = mib(40448);
  slice.reserved = mib(0);
  p.gpus = {parent, slice, slice};
  const auto m = machine_from_probe(p, {});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->gpus, 1);  // a CUDA process enumerates a single MIG device
  EXPECT_EQ(m->total, mib(40448));
  p.gpus = {parent};
  const auto none = machine_from_probe(p, {});
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().hint.find("--memory"), std::string::npos);
}

TEST(NvidiaSmi, migTableAndList) {
  const auto table = parse_nvidia_smi(
      "| NVIDIA-SMI 590.48.01    Driver Version: 590.48.01   CUDA Version: 13.1 |\n"
      "|   0  NVIDIA H200           On  |   00000000:83:00.0 Off |           On |\n"
      "| N/A   28C    P0   78W / 700W |      55MiB / 143771MiB |  N/A  Default |\n"
      "|                              |                        |      Enabled |\n"
      "| MIG devices:                                                          |\n"
      "|  0    2   0   0  |  22MiB / 71424MiB    | 16  0 |  3   0    3    0   3 |\n"
      "|                  |   0MiB / 59237MiB    |       |                      |\n"
      "|  0    2   1   1  |  22MiB / 71424MiB    | 32  0 |  3   0    3    0   3 |\n"
      "|                  |   0MiB / 59237MiB    |       |                      |\n"
      "|  0    9   0   3  |   9MiB / 16384MiB    | 16  0 |  1   0    1    0   1 |\n");
  ASSERT_TRUE(table);
  ASSERT_EQ(table->gpus.size(), 3U);  // the card, and one slice per GPU instance
  const auto m = machine_from_probe(*table, {});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->gpus, 1);
  EXPECT_EQ(m->total, mib(71424));
  EXPECT_EQ(m->used_by_others, mib(22));
  EXPECT_EQ(m->gpu.compute_major, 9);
  const auto list = parse_nvidia_smi("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)\n  MIG 1g.10gb     Device  0: (UUID: MIG-0)\n  MIG 3g.40gb     Device  1: (UUID: MIG-1)\n");
  ASSERT_TRUE(list);
  const auto largest = machine_from_probe(*list, {});
  ASSERT_TRUE(largest);
  EXPECT_EQ(largest->total, mib(40448));
}

TEST(NvidiaSmi, windowsAndWslShowTheWholeCard) {
  ProbeResult p;
  GpuReading g;
  g.name = "NVIDIA GeForce RTX 4090";
  g.total = mib(24564);
  p.gpus = {g};
  p.windows_memory_model = true;
  const auto m = machine_from_probe(p, {});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->usable(), mib(24564 - 205));
  EXPECT_FALSE(m->notes.empty());
}

TEST(NvidiaSmi, recordedOutputsOfManyDrivers) {
  std::ifstream in(DRYFIT_SOURCE_DIR "/../shared/data/nvidia_smi_samples.txt");
  if (!in) GTEST_SKIP() << "no ../shared here";
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  int tables = 0, read = 0;
  std::size_t at = 0;
  while ((at = text.find("=== SAMPLE", at)) != std::string::npos) {
    const std::size_t end = std::min(text.find("=== SAMPLE", at + 1), text.size());
    const std::string block = text.substr(at, end - at);
    const auto p = parse_nvidia_smi(block);
    if (block.find("MiB /") != std::string::npos) {
      ++tables;
      if (p) ++read;
      if (p) {
        EXPECT_TRUE(machine_from_probe(*p, {})) << block.substr(0, 60);
      }
    }
    at = end;
  }
  EXPECT_GT(tables, 10);
  EXPECT_GE(read * 10, tables * 9) << read << " of " << tables;
}

TEST(NvidiaSmi, anyTextIsReadingsOrAnError) {
  EXPECT_TRUE(rc::check("never a crash, always a hint", [](const std::string& text) {
    const auto p = parse_nvidia_smi(text + " MiB / 5MiB\n| 0 A |\n");
    RC_ASSERT(p.has_value() || !p.error().hint.empty());
  }));
}

TEST(Sysfs, readsAmdCards) {
  const std::filesystem::path root = std::filesystem::temp_directory_path() / ("dryfit-sysfs-" + std::to_string(getpid()));
  const auto device = root / "class/drm/card1/device";
  std::filesystem::create_directories(device);
  std::ofstream(device / "vendor") << "0x1002\n";
  std::ofstream(device / "mem_info_vram_total") << "206141652992\n";
  std::ofstream(device / "mem_info_vram_used") << "1048576\n";
  std::ofstream(device / "product_name") << "AMD Instinct MI300X\n";
  const auto p = make_sysfs_probe(root.string())->read();
  std::filesystem::remove_all(root);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->gpus[0].total, Bytes(206141652992));
  EXPECT_FALSE(make_sysfs_probe("/nonexistent")->read());
  EXPECT_FALSE(make_recorded_probe("/nonexistent")->read());
}

}  // namespace
}  // namespace dryfit
