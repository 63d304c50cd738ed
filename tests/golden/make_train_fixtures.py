"""Losses and weights of SAELens 5.3.2's training arithmetic, transcribed, for `model/tests/sae_train.rs`.

Run with torch 2.8: python tests/golden/make_train_fixtures.py. What is transcribed (sae_lens 5.3.2, files under training/):
`training_sae.py` (forward pass, losses), `sae_trainer.py` (`_train_step`), `optim.py` (L1Scheduler; SequentialLR of a constant and
a LinearLR to 0) and `geometric_median.py`. Dense autograd and torch.optim.Adam: nothing here is sparse or lazy.
"""

import pathlib

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent / "sae_train"
WIDTH, FEATURES, K, BATCH, STEPS = 24, 96, 8, 32, 200
LR, DECAY, L1, WARMUP = 3e-3, 60, 5e-2, 20


def geometric_median(points, maxiter=100, eps=1e-6, ftol=1e-20):
    def average(weights):
        weights = weights / weights.sum()
        return (points * weights.view(-1, 1)).sum(dim=0)

    weights = torch.ones(points.shape[0])
    new_weights = weights
    median = average(weights)
    value = torch.linalg.norm(points - median.view(1, -1), dim=1).sum()
    for _ in range(maxiter):
        before = value
        norms = torch.linalg.norm(points - median.view(1, -1), dim=1)
        new_weights = weights / torch.clamp(norms, min=eps)
        median = average(new_weights)
        value = torch.linalg.norm(points - median.view(1, -1), dim=1).sum()
        if abs(before - value) <= ftol * value:
            break
    return average(new_weights)


def planted(rows):
    """Sums of few of 64 directions, off the origin."""
    directions = torch.randn(64, WIDTH)
    directions /= directions.norm(dim=1, keepdim=True)
    active = (torch.rand(rows, 64) < 0.06).float() * (0.5 + torch.rand(rows, 64))
    return active @ directions + 0.7 * torch.randn(WIDTH) + 0.01 * torch.randn(rows, WIDTH)


def main():
    torch.manual_seed(5)
    torch.set_num_threads(1)
    rows = planted(STEPS * BATCH)
    w_enc = torch.nn.Parameter(torch.nn.init.kaiming_uniform_(torch.empty(WIDTH, FEATURES)))
    w_dec = torch.nn.Parameter(torch.nn.init.kaiming_uniform_(torch.empty(FEATURES, WIDTH)))
    b_enc = torch.nn.Parameter(torch.zeros(FEATURES))
    b_dec = torch.nn.Parameter(geometric_median(rows[: 16 * BATCH]))
    start = {"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec}
    start = {f"start_{name}": p.detach().clone() for name, p in start.items()}

    parameters = [w_enc, b_enc, w_dec, b_dec]
    adam = torch.optim.Adam(parameters, lr=LR, betas=(0.0, 0.999))
    constant = torch.optim.lr_scheduler.LambdaLR(adam, lr_lambda=lambda _: 1.0)
    linear = torch.optim.lr_scheduler.LinearLR(adam, start_factor=1.0, end_factor=0.0, total_iters=DECAY)
    schedule = torch.optim.lr_scheduler.SequentialLR(adam, [constant, linear], milestones=[STEPS - DECAY])
    l1, losses, penalties, active, norms, rates = 0.0, [], [], [], [], []
    fired = torch.zeros(FEATURES)
    for step in range(STEPS):
        x = rows[step * BATCH : (step + 1) * BATCH]
        with torch.no_grad():
            w_dec /= w_dec.norm(dim=1, keepdim=True)
        pre = (x - b_dec) @ w_enc + b_enc
        top = torch.topk(pre, k=K, dim=-1)
        codes = torch.zeros_like(pre).scatter(-1, top.indices, torch.relu(top.values))
        out = codes @ w_dec + b_dec
        mse = ((out - x) ** 2).sum(dim=-1).mean()
        penalty = (l1 * codes.norm(p=1, dim=-1)).mean()
        loss = mse + penalty
        adam.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0).item())
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step()
        losses.append(loss.item())
        penalties.append(penalty.item())
        active.append((codes > 0).float().sum(-1).mean().item())
        fired += (codes > 0).float().sum(0)
        l1 = L1 * ((1 + step) / WARMUP) if step < WARMUP else L1
    with torch.no_grad():
        w_dec /= w_dec.norm(dim=1, keepdim=True)
    end = {"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec}
    end = {f"end_{name}": p.detach().clone() for name, p in end.items()}
    series = {"loss": losses, "l1": penalties, "l0": active, "grad_norm": norms, "lr": rates}
    series = {name: torch.tensor(values, dtype=torch.float32) for name, values in series.items()}
    sparsity = torch.log10(fired / (STEPS * BATCH) + 1e-10)
    HERE.mkdir(exist_ok=True)
    tensors = {"rows": rows, "sparsity": sparsity, **start, **end, **series}
    save_file({name: t.contiguous() for name, t in tensors.items()}, HERE / "saelens-5.3.2.safetensors")
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}, l0 {active[-1]:.2f}, silent {(fired == 0).sum().item()}")


if __name__ == "__main__":
    main()
