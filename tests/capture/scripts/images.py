"""A timm model on random images, as an image classification script goes: DataLoader with workers, fp16 with a scaler, label smoothing, accuracy."""
import argparse

import timm
import torch
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="vit_tiny_patch16_224")
parser.add_argument("--batch", type=int, default=8)
args = parser.parse_args()


class Images(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        return torch.rand(3, 224, 224), index % 10


device = torch.device("cuda")
torch.backends.cudnn.benchmark = True
loader = DataLoader(Images(), batch_size=args.batch, shuffle=True, num_workers=2, pin_memory=True, persistent_workers=True, drop_last=True)
model = timm.create_model(args.model, num_classes=10, drop_rate=0.1).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
scaler = torch.amp.GradScaler("cuda")

for epoch in range(2):
    model.train()
    correct = total = 0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.float16):
            output = model(images)
            loss = criterion(output, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        correct += (output.argmax(1) == labels).sum().item()
        total += labels.numel()
    scheduler.step()
    print(f"epoch {epoch}: accuracy {correct / total:.3f}")
