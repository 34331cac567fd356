"""As much of PyTorch as `bench_authors` calls, made of TensorFlow, for where it is not installed.

Layouts and conventions are PyTorch's: channels before rows and columns, a kernel as (out, in, rows,
columns), a padding from the last axis on.  What is computed is recorded on one tape.
"""

import types

import tensorflow as tf


class Tensor:
    """A tensor with the methods and operators that are called."""

    def __init__(self, value):
        self.value = tf.convert_to_tensor(value)
        self.shape, self.ndim = tuple(self.value.shape), len(self.value.shape)
        self.dtype = self.value.dtype

    def __getitem__(self, m):
        return Tensor(self.value[m])

    def __add__(self, other):
        return Tensor(self.value + other.value)

    def __sub__(self, other):
        return Tensor(self.value - other.value)

    def __mul__(self, other):
        return Tensor(self.value * (other.value if isinstance(other, Tensor) else other))

    __rmul__ = __mul__

    def __matmul__(self, other):
        return Tensor(tf.matmul(self.value, other.value))

    def permute(self, *axes):
        return Tensor(tf.transpose(self.value, axes))

    def contiguous(self):
        return self

    def to(self, dtype):
        return Tensor(tf.cast(self.value, dtype))

    def flatten(self, first):
        return Tensor(tf.reshape(self.value, [*self.shape[:first], -1]))

    def mean(self, dim):
        return Tensor(tf.reduce_mean(self.value, dim))

    def numpy(self):
        return self.value.numpy()


def channels_last(x):
    return tf.transpose(x.value, (0, 2, 3, 1))


def channels_first(x):
    return Tensor(tf.transpose(x, (0, 3, 1, 2)))


def conv2d(x, kernel, bias=None, stride=1, padding=0):
    found = tf.nn.conv2d(
        channels_last(x),
        tf.transpose(kernel.value, (2, 3, 1, 0)),
        stride,
        {"same": "SAME", 0: "VALID"}[padding],
    )
    return channels_first(found if bias is None else found + bias.value)


def avg_pool2d(x, size):
    return channels_first(tf.nn.avg_pool2d(channels_last(x), size, size, "VALID"))


def pad(x, margins):
    left, right, above, below = margins
    return Tensor(tf.pad(x.value, [[0, 0], [0, 0], [above, below], [left, right]]))


def batch_norm(x, mean, variance, weight, bias, training, momentum, eps):
    assert training
    assert mean is variance is None
    by_unit = [tf.reshape(v.value, (1, -1, 1, 1)) for v in (weight, bias)]
    centred = x.value - tf.reduce_mean(x.value, (0, 2, 3), keepdims=True)
    spread = tf.reduce_mean(centred**2, (0, 2, 3), keepdims=True)
    return Tensor(centred / tf.sqrt(spread + eps) * by_unit[0] + by_unit[1])


def cross_entropy(logits, labels):
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels.value, logits.value)
    return Tensor(tf.reduce_mean(each))


def modules(tape, threads):
    """Return {name: module} of what is imported.

    Args:
        tape: an open, persistent `tf.GradientTape`, on which everything is recorded.
        threads: a list to which the number of threads is added that is asked for.
    """

    def ones_like(w, requires_grad):
        ones = Tensor(tf.ones_like(w.value))
        if requires_grad:
            tape.watch(ones.value)
        return ones

    def grad(loss, weights, create_graph=False):
        found = tape.gradient(loss.value, [w.value for w in weights])
        return [Tensor(g if create_graph else tf.stop_gradient(g)) for g in found]

    torch, nn, functional, autograd = (
        types.ModuleType(name)
        for name in ("torch", "torch.nn", "torch.nn.functional", "torch.autograd")
    )
    torch.nn, nn.functional, torch.autograd = nn, functional, autograd
    torch.from_numpy, torch.ones_like, torch.set_num_threads = Tensor, ones_like, threads.append
    torch.tanh, torch.relu = (
        (lambda x: Tensor(tf.tanh(x.value))),
        lambda x: Tensor(tf.nn.relu(x.value)),
    )
    autograd.grad = grad
    for function in (conv2d, avg_pool2d, pad, batch_norm, cross_entropy):
        setattr(functional, function.__name__, function)
    return {module.__name__: module for module in (torch, nn, functional, autograd)}
