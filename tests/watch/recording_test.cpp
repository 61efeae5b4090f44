// Recordings: what is written is read back; anything else is an error with its place. The NVML sampler against a library of ours.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "machine/process.hpp"
#include "machine/sampler.hpp"
#include "watch/probe_recording.hpp"

namespace dryfit {
namespace {

GpuSample full() {
  GpuSample g;
  g.index = 3, g.name = "NVIDIA \"H100\"", g.uuid = "GPU-1", g.compute_major = 9, g.compute_minor = 0;
  g.total = gib(80), g.reserved = mib(479), g.used = gib(40), g.utilization = 0.97, g.memory_utilization = 0.5;
  g.power_watts = 691.5, g.power_limit_watts = 700, g.temperature_c = 61, g.sm_clock_mhz = 1755, g.sm_clock_max_mhz = 1980;
  g.throttle = 0x24, g.pcie_generation = 4, g.pcie_generation_max = 5, g.pcie_width = 8, g.pcie_width_max = 16;
  g.processes = std::vector<GpuProcess>{{41, gib(39)}, {42, std::nullopt}};
  return g;
}

TEST(Recording, roundTrips) {
  RecordingHeader header;
  header.started_ms = 1234567890123, header.source = "nvml", header.gpus = {full(), {}};
  Moment moment;
  moment.sample.seconds = 12.25, moment.sample.gpus = {full(), {}};
  moment.sample.gpus[1].lost = true;
  ProcessSample p;
  p.pid = 41, p.parent = 1, p.name = "python", p.resident = gib(3), p.cpu = 1.5;
  moment.sample.processes = {p};
  moment.sample.notes = {"a note"};
  moment.job = SeenJob{41, "python -m scripts.base_train --depth=4", {"WORLD_SIZE=2"}};
  moment.log = {"step 1/2 | loss: 3"};
  RecordingReader reader;
  ASSERT_TRUE(reader.read_header(write_recording_header(header)));
  EXPECT_EQ(reader.header().started_ms, header.started_ms);
  const auto back = reader.read_moment(write_recording_moment(moment));
  ASSERT_TRUE(back) << back.error().message;
  const GpuSample &g = back->sample.gpus[0], want = full();
  EXPECT_EQ(back->sample.seconds, 12.25);
  EXPECT_TRUE(back->sample.gpus[1].lost);
  EXPECT_EQ(g.name, want.name);
  EXPECT_EQ(g.used, want.used);
  EXPECT_EQ(g.usable(), want.usable());
  EXPECT_EQ(g.utilization, want.utilization);
  EXPECT_EQ(g.power_watts, want.power_watts);
  EXPECT_EQ(g.throttle, want.throttle);
  EXPECT_EQ(g.pcie_width_max, want.pcie_width_max);
  ASSERT_EQ(g.processes->size(), 2U);
  EXPECT_EQ((*g.processes)[0].used, gib(39));
  EXPECT_FALSE((*g.processes)[1].used);
  EXPECT_EQ(back->sample.processes[0].cpu, 1.5);
  EXPECT_EQ(back->job->command, moment.job->command);
  EXPECT_EQ(back->log, moment.log);
  EXPECT_EQ(back->sample.notes, moment.sample.notes);
}

TEST(Recording, wrongOnesAreRefusedWithTheirPlace) {
  for (const char* text : {"", "{}", "[]", "null", "not json", "{\"dryfit_recording\":\"1\"}", "{\"dryfit_recording\":1}", "{\"dryfit_recording\":1,\"gpus\":[]}", "{\"dryfit_recording\":1,\"gpus\":[3]}",
                           "{\"dryfit_recording\":1,\"gpus\":[{\"total\":-1}]}", "{\"dryfit_recording\":1,\"gpus\":[{\"total\":1e30}]}", "{\"dryfit_recording\":1,\"gpus\":[{\"name\":5}]}"}) {
    RecordingReader reader;
    const auto r = reader.read_header(text);
    ASSERT_FALSE(r) << text;
    EXPECT_FALSE(r.error().hint.empty());
    EXPECT_EQ(r.error().where, "line 1");
  }
  RecordingReader newer;
  EXPECT_EQ(newer.read_header("{\"dryfit_recording\":2,\"gpus\":[{}]}").error().code, "newer_recording");
  for (const char* text : {"", "7", "{}", "{\"t\":1}", "{\"t\":-1,\"gpus\":[{}]}", "{\"t\":\"1\",\"gpus\":[{}]}", "{\"t\":1,\"gpus\":[]}", "{\"t\":1,\"gpus\":[{},{}]}", "{\"t\":1,\"gpus\":[{\"used\":1.5}]}",
                           "{\"t\":1,\"gpus\":[{\"util\":2}]}", "{\"t\":1,\"gpus\":[{\"processes\":[[1]]}]}", "{\"t\":1,\"gpus\":[{\"processes\":[[0,1]]}]}", "{\"t\":1,\"gpus\":[{}],\"log\":[1]}", "{\"t\":1,\"gpus\":[{}],\"job\":3}",
                           "{\"t\":1,\"gpus\":[{\"throttle\":18446744073709551615}]}", "{\"t\":1,\"gpus\":[{}],\"processes\":[{\"pid\":\"x\"}]}"}) {
    RecordingReader reader;
    ASSERT_TRUE(reader.read_header("{\"dryfit_recording\":1,\"gpus\":[{\"total\":1000}]}"));
    const auto r = reader.read_moment(text);
    ASSERT_FALSE(r) << text;
    EXPECT_EQ(r.error().where, "line 2") << text;
  }
  RecordingReader back;
  ASSERT_TRUE(back.read_header("{\"dryfit_recording\":1,\"gpus\":[{}]}"));
  ASSERT_TRUE(back.read_moment("{\"t\":5,\"gpus\":[{}]}"));
  EXPECT_FALSE(back.read_moment("{\"t\":4,\"gpus\":[{}]}"));
}

TEST(Recording, unknownFieldsAreForLaterVersions) {
  RecordingReader reader;
  ASSERT_TRUE(reader.read_header("{\"dryfit_recording\":1,\"gpus\":[{\"colour\":\"green\"}],\"more\":[]}"));
  EXPECT_TRUE(reader.read_moment("{\"t\":5,\"gpus\":[{\"used\":null,\"fan\":3}],\"weather\":{}}"));
}

class Nvml : public testing::Test {
 protected:
  void SetUp() override {
    state_ = std::filesystem::temp_directory_path() / ("dryfit_fake_" + std::to_string(getpid()));
    setenv("DRYFIT_NVML", DRYFIT_FAKE_LIBRARY, 1);
    setenv("DRYFIT_FAKE_NVML", state_.c_str(), 1);
  }
  void TearDown() override {
    std::filesystem::remove(state_);
    unsetenv("DRYFIT_NVML");
    unsetenv("DRYFIT_FAKE_NVML");
  }
  void state(const std::string& text) { std::ofstream(state_) << text; }
  std::filesystem::path state_;
};

TEST_F(Nvml, tellsEverythingItCan) {
  state("gpu 0 used 30000\ngpu 0 utilization 97\ngpu 0 power 691500\ngpu 0 power_limit 700000\ngpu 0 temperature 61\ngpu 0 sm 1755\ngpu 0 sm_max 1980\ngpu 0 throttle 0x24\n"
        "gpu 0 pcie 4\ngpu 0 pcie_max 5\ngpu 0 width 8\ngpu 0 width_max 16\ngpu 0 process 41 28500\ngpu 0 process 42\n");
  const auto sampler = open_nvml_sampler();
  ASSERT_TRUE(sampler) << sampler.error().message;
  const auto gpus = (*sampler)->sample();
  ASSERT_TRUE(gpus);
  ASSERT_EQ(gpus->size(), 1U);
  const GpuSample& g = (*gpus)[0];
  EXPECT_EQ(g.used, mib(30000));
  EXPECT_EQ(g.usable(), mib(81559 - 479));
  EXPECT_DOUBLE_EQ(*g.utilization, 0.97);
  EXPECT_DOUBLE_EQ(*g.power_watts, 691.5);
  EXPECT_EQ(throttle_names(*g.throttle), (std::vector<std::string_view>{"power_cap", "thermal"}));
  EXPECT_EQ(g.pcie_width, 8);
  EXPECT_EQ(g.pcie_width_max, 16);
  EXPECT_FALSE(g.memory_clock_mhz);  // not supported is unknown, not zero
  ASSERT_EQ(g.processes->size(), 2U);
  EXPECT_EQ((*g.processes)[0].used, mib(28500));
  EXPECT_FALSE((*g.processes)[1].used);
}

TEST_F(Nvml, manyProcessesNeedASecondCall) {
  std::string text = "gpu 0 used 1\n";
  state(text);
  auto sampler = open_nvml_sampler();
  ASSERT_TRUE(sampler);
  for (int i = 0; i < 64; ++i) text += "gpu 0 process " + std::to_string(100 + i) + " 10\n";
  state(text);
  EXPECT_EQ((*(*sampler)->sample())[0].processes->size(), 64U);
}

TEST_F(Nvml, oneLostGpuIsSaidAllLostIsAnError) {
  state("gpu 0 used 5\ngpu 1 used 6\n");
  auto sampler = open_nvml_sampler();
  ASSERT_TRUE(sampler);
  state("gpu 0 used 5\ngpu 1 lost 1\n");
  const auto gpus = (*sampler)->sample();
  ASSERT_TRUE(gpus);
  EXPECT_FALSE((*gpus)[0].lost);
  EXPECT_TRUE((*gpus)[1].lost);
  state("gpu 0 lost 1\ngpu 1 lost 1\n");
  const auto none = (*sampler)->sample();
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, "gpu_lost");
}

TEST_F(Nvml, errorsHaveAWayOut) {
  for (const char* text : {"init 18\ngpu 0 used 1\n", "init 4\n", "init 9\n", "init 0\n"}) {
    state(text);
    const auto sampler = open_nvml_sampler();
    ASSERT_FALSE(sampler) << text;
    EXPECT_FALSE(sampler.error().hint.empty());
  }
  state("init 0\ngpu 0 used 1\n");  // the library keeps its code between tests
}

TEST_F(Nvml, olderDriversAndSlices) {
  state("gpu 0 used 500\ngpu 0 old_memory 1\n");
  EXPECT_EQ((*(*open_nvml_sampler())->sample())[0].total, mib(81559));
  state("gpu 0 used 500\ngpu 0 mig 1\n");
  const auto gpus = (*open_nvml_sampler())->sample();
  ASSERT_EQ(gpus->size(), 2U);
  EXPECT_TRUE((*gpus)[0].mig);
  EXPECT_FALSE((*gpus)[0].utilization);
}

TEST(NvidiaSmiSample, readsItsColumns) {
  const auto gpus = parse_nvidia_smi_sample("0, NVIDIA H100 80GB HBM3, GPU-1, 81559, 479, 30000, 51080, 9.0, 97, 40, 691.20, 700.00, 61, 1755, 1980, 2619, 2619, 0x0000000000000024, 5, 5, 16, 16\n"
                                            "1, NVIDIA GB10, GPU-2, [N/A], [N/A], [N/A], [N/A], 12.1, [N/A], [N/A], [N/A], [N/A], 50, [N/A], [N/A], [N/A], [N/A], [N/A], 1, 1, 1, 1\nnonsense\n",
                                            "GPU-1, 41, 28500\nGPU-1, 42, [N/A]\nGPU-9, 1, 2\n");
  ASSERT_TRUE(gpus);
  ASSERT_EQ(gpus->size(), 2U);
  EXPECT_EQ((*gpus)[0].throttle, 0x24U);
  EXPECT_EQ((*gpus)[0].processes->size(), 2U);
  EXPECT_FALSE((*gpus)[1].total);
  EXPECT_FALSE(parse_nvidia_smi_sample("NVIDIA-SMI has failed", ""));
}

TEST(Processes, readsItself) {
  const auto table = make_process_table();
  auto self = table->read(getpid());
  ASSERT_TRUE(self);
  EXPECT_FALSE(self->command.empty());
  EXPECT_EQ(self->parent, getppid());
  EXPECT_GT(*self->resident, mib(1));
  for (const std::string& entry : self->environment) EXPECT_FALSE(entry.starts_with("PATH=") || entry.starts_with("HOME="));
  EXPECT_TRUE(table->update(*self));
  self->started += 1;  // another process has the number
  EXPECT_FALSE(table->update(*self));
  EXPECT_FALSE(table->read(std::int64_t{1} << 40));
  EXPECT_EQ(table->uses_gpu(getpid()), false);
}

TEST(Processes, namesMayHoldAnything) {
  const auto root = std::filesystem::temp_directory_path() / ("dryfit_proc_" + std::to_string(getpid()));
  std::filesystem::create_directories(root / "12");
  std::filesystem::create_directories(root / "13");
  std::ofstream(root / "12" / "stat") << "12 (a) b (c) ) S 7 0 0 0 0 0 0 0 0 0 10 5 0 0 20 0 1 0 777 1000 50 0";
  std::ofstream(root / "12" / "cmdline") << std::string("python\0-m\0x y\0", 14);
  std::ofstream(root / "12" / "environ") << std::string("SECRET=1\0WORLD_SIZE=8\0", 22);
  std::ofstream(root / "13" / "stat") << "13 (gone) Z 7 0";
  const auto table = make_process_table(root.string());
  const auto p = table->read(12);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->name, "a) b (c) ");
  EXPECT_EQ(p->parent, 7);
  EXPECT_EQ(p->started, 777U);
  EXPECT_EQ(p->command, (std::vector<std::string>{"python", "-m", "x y"}));
  EXPECT_EQ(p->environment, std::vector<std::string>{"WORLD_SIZE=8"});
  EXPECT_EQ(table->all().size(), 1U);
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace dryfit
