"""Data and noise of an iteration in PyTorch, drawn on the device: what Bracket draws, too."""
import torch

IMAGES = 4096  # in the table that batches of images are gathered from


class Draws:
    def __init__(self, task, batch, device, dtype):
        self.task, self.batch = task, batch
        self.options = {"device": device, "dtype": dtype}
        if len(task.shape) == 3:
            self.table = torch.randint(0, 256, (IMAGES, *task.shape), dtype=torch.uint8, device=device)

    def data(self):
        n, device = self.batch, self.options["device"]
        if len(self.task.shape) == 1:  # 25 Gaussians
            centres = torch.randint(-2, 3, (n, 2), device=device) * 2.0
            return ((centres + 0.05 * torch.randn(n, 2, device=device)) / 2.828).to(self.options["dtype"])
        images = self.table[torch.randint(0, IMAGES, (n,), device=device)].to(self.options["dtype"]) * (2 / 255) - 1
        mirrored = torch.rand(n, 1, 1, 1, device=device) < 0.5
        return torch.where(mirrored, images.flip(3), images)

    def noise(self):
        names = ("latent", "probe", "fresh") + (("start",) if self.task.estimator == "lobpcg" else ())
        return {name: torch.randn(self.batch, self.task.latents, **self.options) for name in names}
