"""Our sweep beside the paper's algorithm in PyTorch: time and memory, `make bench` stores them.

The paper's released code unrolls all M steps and differentiates through them at once; here that is
written in PyTorch from the paper's equations, in the layout and style that PyTorch is fastest with.
It runs in a process of its own, ours in another, because their threads would slow each other down.
Both have equally many threads, and they take turns: while one runs, the other waits for its turn.
A time is the median of the turns after a first call; memory is what the peak of a fresh process
grows by with one step more.  Without PyTorch (`pip install -e .[torch]`) there is nothing to do.
"""

import argparse
import multiprocessing
import statistics
import time
from pathlib import Path

from prosper_utils.lookahead.meta_gradient import meta_gradient
from prosper_utils.study import results

import bench
import numpy as np
import tensorflow as tf
from tqdm import tqdm

CASES = [("LeNet-300-100", 10), ("LeNet-300-100", 50), ("LeNet-5", 10), ("LeNet-5", 50)]
CASES += [("ResNet-20", 3)]
MEMORY = {"LeNet-300-100": (10, 110), "LeNet-5": (10, 60), "ResNet-20": (1, 3)}
THREADS, BATCH, RATE = 2, 128, 0.1


def torch_is_there():
    """Return whether PyTorch is installed: pip install -e .[torch]."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def problem(name, steps, dtype):
    """Return (weights, loss, M + 1 stacked batches); the digits stand in as colour images."""
    return bench.problem(name, steps, BATCH, dtype=dtype)


def ours(name, steps, dtype="float32"):
    """Return a call that computes the meta-gradient with the reverse sweep."""
    weights, loss, batches = problem(name, steps, dtype)
    return lambda: [s.numpy() for s in meta_gradient(loss, weights, batches, learning_rate=RATE)]


def theirs(name, steps, dtype="float32"):
    """Return a call that computes it with PyTorch, through the graph of all steps."""
    import torch

    torch.set_num_threads(THREADS)
    weights, loss, (x, y) = problem(name, steps, dtype)
    names = [n if name == "ResNet-20" else str(i) for i, n in enumerate(loss.names)]
    initial = [to_torch(w.numpy()) for w in weights]
    x = torch.from_numpy(x.numpy()).permute(0, 1, 4, 2, 3).to(initial[0].dtype).contiguous()
    y = torch.from_numpy(y.numpy())
    network = {"LeNet-300-100": dense, "LeNet-5": lenet5, "ResNet-20": resnet20}[name]

    def loss_of(w, m):
        logits = network(dict(zip(names, w, strict=True)), x[m])
        return torch.nn.functional.cross_entropy(logits, y[m])

    def run():
        mask = [torch.ones_like(w, requires_grad=True) for w in initial]
        w = [c * p for c, p in zip(mask, initial, strict=True)]
        for m in range(steps):
            gradient = torch.autograd.grad(loss_of(w, m), w, create_graph=True)
            w = [p - RATE * g for p, g in zip(w, gradient, strict=True)]
        return [to_numpy(s) for s in torch.autograd.grad(loss_of(w, steps), mask)]

    return run


def to_torch(w):
    """Return an array as a tensor, a kernel of a convolution with its channels first."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w))


def to_numpy(w):
    """Return a tensor as an array, a kernel of a convolution with its channels last."""
    return (w.permute(2, 3, 1, 0) if w.ndim == 4 else w).numpy()


def dense(w, x):
    """Return the logits of LeNet-300-100."""
    import torch

    h = torch.tanh(x.permute(0, 2, 3, 1).flatten(1) @ w["0"] + w["1"])
    return torch.tanh(h @ w["2"] + w["3"]) @ w["4"] + w["5"]


def lenet5(w, x):
    """Return the logits of LeNet-5."""
    import torch
    from torch.nn.functional import avg_pool2d, conv2d

    h = avg_pool2d(torch.tanh(conv2d(x, w["0"], w["1"], padding="same")), 2)
    h = avg_pool2d(torch.tanh(conv2d(h, w["2"], w["3"])), 2).permute(0, 2, 3, 1).flatten(1)
    h = torch.tanh(h @ w["4"] + w["5"])
    return torch.tanh(h @ w["6"] + w["7"]) @ w["8"] + w["9"]


def resnet20(w, x):
    """Return the logits of `networks.resnet20` with batch statistics."""
    import torch
    from torch.nn.functional import batch_norm, conv2d, pad

    def convolve(h, name, stride=1):
        kernel = w[f"{name}/kernel"]
        size = kernel.shape[-1]
        # TensorFlow's "same": with stride 2 an even image is padded behind only.
        before, after = (size // 2, size // 2) if stride == 1 else (0, size - 2)
        h = pad(h, (before, max(after, 0), before, max(after, 0)))
        norm = (w[f"{name}_norm/gamma"], w[f"{name}_norm/beta"])
        return batch_norm(conv2d(h, kernel, stride=stride), None, None, *norm, True, 0.1, 1e-5)

    x = torch.relu(convolve(x, "first"))
    for stage in (1, 2, 3):
        for block in (1, 2, 3):
            name, stride = f"stage_{stage}_block_{block}", 2 if stage > 1 and block == 1 else 1
            shortcut = x if stride == 1 else convolve(x, f"{name}_skip", stride)
            x = torch.relu(convolve(x, f"{name}_conv_1", stride))
            x = torch.relu(convolve(x, f"{name}_conv_2") + shortcut)
    return x.mean(dim=(2, 3)) @ w["output/kernel"] + w["output/bias"]


SIDES = {"ours": ours, "theirs": theirs}


def work(pipe, side, name, steps, dtype):
    """Serve one side in a process of its own: run once for every message, and tell the time."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    run = SIDES[side](name, steps, dtype)
    pipe.send(run())
    while pipe.recv():
        begin = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - begin)


def together(name, steps, repeats, dtype="float32"):
    """Return the seconds of each turn of both sides, and how far apart their results are."""
    spawn, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for side in SIDES:
        pipes[side], end = spawn.Pipe()
        processes.append(
            spawn.Process(target=work, args=(end, side, name, steps, dtype), daemon=True)
        )
        processes[-1].start()
    first = {side: pipe.recv() for side, pipe in pipes.items()}
    seconds = {side: [] for side in SIDES}
    for _ in tqdm(range(repeats), f"{name}, M = {steps}"):
        for side, pipe in pipes.items():
            pipe.send(True)
            seconds[side].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return seconds, bench.relative_error(first["ours"], first["theirs"])


def grown(pipe, side, name, steps):
    """Send by how many bytes the second call raises the peak of this process."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    SIDES[side](name, min(steps, 2))()
    run = SIDES[side](name, steps)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = bench.resident("VmRSS")
    run()
    pipe.send(bench.resident("VmHWM") - before)


def mib_per_step(side, name):
    """Return the memory of one step more in MiB, from two numbers of steps, each in a process."""
    spawn, peaks, counts = multiprocessing.get_context("spawn"), [], MEMORY[name]
    for steps in counts:
        pipe, end = spawn.Pipe()
        process = spawn.Process(target=grown, args=(end, side, name, steps))
        process.start()
        peaks.append(pipe.recv())
        process.join()
    return (peaks[1] - peaks[0]) / (counts[1] - counts[0]) / bench.MIB


def main():
    """Measure all cases and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    if not torch_is_there():
        print("PyTorch is not installed: nothing to compare with")
        return
    begin, rows, memory = time.perf_counter(), [], {}
    for name, steps in CASES:
        seconds, _ = together(name, steps, repeats)
        _, error = together(name, min(steps, 3), 0, "float64")  # the same is computed
        for side in SIDES:
            if (side, name) not in memory:
                memory[side, name] = mib_per_step(side, name)
        row = {"network": name, "steps": steps, "error": error}
        row |= {side: statistics.median(seconds[side]) for side in SIDES}
        ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        row |= {"ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        row |= {f"{side}_mib_per_step": memory[side, name] for side in SIDES}
        rows.append(row)
    configuration = {"batch_size": BATCH, "threads": THREADS, "repeats": repeats}
    packages = ("torch", *results.PACKAGES)
    seconds = time.perf_counter() - begin
    results.save("bench_authors", rows, configuration, seconds=seconds, packages=packages)


if __name__ == "__main__":
    main()
