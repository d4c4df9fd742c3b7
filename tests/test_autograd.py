"""The backward sweep: what it computes, keeps, frees and refuses."""

import gc
import threading
import weakref

import numpy as np
import pytest

import nanonet
import nanonet.functional as F
from nanonet import Function, gradcheck, gradgradcheck
from nanonet.device import share_memory
from nanonet.errors import ShapeError


def leaf(*values, dtype="float32"):
    return nanonet.tensor(list(values), dtype=dtype, requires_grad=True)


# ------------------------------------------------------------------------------- backward


def test_gradients_accumulate_until_they_are_cleared(backend_in_use):
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 8])
    x.grad = None
    (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])


def test_a_tensor_used_often_gets_the_sum(backend_in_use):
    x = leaf(3.0)
    (x * x + x * 2 + x).sum().backward()
    assert x.grad.item() == 9


def test_broadcasting_is_undone(backend_in_use):
    a, b, c = (nanonet.ones(s, requires_grad=True) for s in [(3, 1), (4,), ()])
    (a * b + c).sum().backward()
    assert [t.grad.shape for t in (a, b, c)] == [(3, 1), (4,), ()]
    np.testing.assert_array_equal(a.grad.numpy(), [[4]] * 3)
    np.testing.assert_array_equal(b.grad.numpy(), [3] * 4)
    assert c.grad.item() == 12


def test_a_gradient_can_be_given(backend_in_use):
    x = leaf(1.0, 2.0)
    (x * 2).backward(nanonet.tensor([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 20])
    x.backward(np.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [3, 21])
    with pytest.raises(ShapeError, match=r"backward: a tensor of shape \(2,\) needs a gradient"):
        (x * 2).backward()
    with pytest.raises(ShapeError, match=r"gradient has shape \(3,\), the tensor \(2,\)"):
        (x * 2).backward(nanonet.ones(3))


def test_what_nothing_depends_on_cannot_be_differentiated():
    with pytest.raises(RuntimeError, match="does not depend on anything that requires a gradient"):
        nanonet.tensor([1.0]).backward()


def test_a_freed_graph_says_so_and_retain_graph_keeps_it(backend_in_use):
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_memory_is_freed_by_backward_and_without_it(backend_in_use):
    x = leaf(1.0, 2.0)
    h = x.exp()
    saved = weakref.ref(h.array)
    y = h.sin().sum()
    del h
    assert saved() is not None
    y.backward()
    assert saved() is None
    h = x.exp()
    saved = weakref.ref(h.array)
    gc.disable()
    try:
        del h
        assert saved() is None
    finally:
        gc.enable()


def test_a_deep_graph_needs_no_recursion(backend_in_use):
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.item() == 1
    (g,) = nanonet.grad(y.sum() if y.node.args else x.sum(), x)
    assert g.item() == 1


def test_a_deep_graph_is_dropped_without_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y * 1.5
    del y


def test_a_wide_graph_is_swept_once(backend_in_use):
    """Each level uses the one before twice: 2^40 ways, 40 steps."""
    x = leaf(1.0, dtype="float64")
    y = x
    for _ in range(40):
        y = (y + y) * 0.5
    y.sum().backward()
    assert x.grad.item() == 1


def test_gradients_share_no_memory(backend_in_use):
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + y).sum().backward()
    assert not share_memory(x.grad.array, y.grad.array)
    x.grad.fill_(7)
    np.testing.assert_array_equal(y.grad.numpy(), [1, 1])
    z = leaf(1.0, 1.0)
    g = nanonet.ones(2)
    z.backward(g)
    z.grad.fill_(5)
    np.testing.assert_array_equal(g.numpy(), [1, 1])
    for create_graph in (False, True):
        x, y = leaf(1.0), leaf(3.0)
        (x + y).sum().backward(create_graph=create_graph)
        (x * 1).sum().backward()
        assert (x.grad.item(), y.grad.item()) == (2, 1)


def test_accumulating_spares_a_gradient_that_others_differentiate_through(backend_in_use):
    w = leaf(2.0, dtype="float64")
    (w * w * w).sum().backward(create_graph=True)
    penalty = (w.grad * w.grad).sum()  # 9 w^4
    penalty.backward()
    assert w.grad.item() == 12 + 36 * 8


# ---------------------------------------------------------------------- switches and leaves


def test_no_grad_as_context_and_as_decorator():
    x = leaf(1.0)
    with nanonet.no_grad():
        assert not nanonet.is_grad_enabled()
        assert not (x * 2).requires_grad
        with nanonet.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad

    @nanonet.no_grad()
    def double(x):
        return x * 2

    assert not double(x).requires_grad
    assert not double(x).requires_grad


def test_no_grad_is_of_this_thread():
    found = []
    with nanonet.no_grad():
        thread = threading.Thread(target=lambda: found.append(nanonet.is_grad_enabled()))
        thread.start()
        thread.join()
    assert found == [True]


def test_detach_and_leaves():
    x = leaf(1.0, 2.0)
    y = x * 2
    assert x.is_leaf and not y.is_leaf
    assert not y.detach().requires_grad
    assert np.shares_memory(y.detach().numpy(), y.numpy())
    with pytest.raises(RuntimeError, match="for a leaf only"):
        y.requires_grad = False
    with pytest.raises(RuntimeError, match="no_grad"):
        x.copy_(0)
    with nanonet.no_grad():
        x.zero_()
    assert x.tolist() == [0, 0]
    x.data = [3.0, 4.0]
    assert x.tolist() == [3, 4] and x.requires_grad
    with pytest.raises(ShapeError, match=r"grad: has shape \(3,\), its tensor \(2,\)"):
        x.grad = nanonet.zeros(3)


def test_only_what_requires_a_gradient_is_computed(backend_in_use):
    """d/dw is asked for, d/dx is not: its rule is not called."""
    called = []

    @nanonet.autograd.op
    def product(x, w):
        return x.detach() * w.detach()

    product.rule = lambda g, out, x, w: (lambda: called.append("x") or g * w, lambda: called.append("w") or g * x)
    product(nanonet.tensor([1.0]), leaf(2.0)).sum().backward()
    assert called == ["w"]
    called.clear()
    x, w = leaf(1.0), leaf(2.0)
    nanonet.grad(product(x, w).sum(), x)
    assert called == ["x"] and x.grad is None and w.grad is None


# ------------------------------------------------------------------------------------- grad


def test_grad_of_leaves_and_of_what_is_between(backend_in_use):
    x = leaf(2.0, dtype="float64")
    h = x * x
    y = (h * h + h).sum()
    gx, gh = nanonet.grad(y, [x, h])
    assert (gx.item(), gh.item()) == (2 * 2 * 9, 9)
    assert x.grad is None
    (g,) = nanonet.grad(h, h, nanonet.tensor([3.0], dtype="float64"))
    assert g.item() == 3


def test_grad_of_several_outputs_is_of_their_sum(backend_in_use):
    x = leaf(1.0, 2.0)
    (g,) = nanonet.grad([x * 2, (x * x).sum()], x, [nanonet.ones(2), None])
    np.testing.assert_array_equal(g.numpy(), [4, 6])


def test_unused_inputs_are_named():
    x, z = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="do not depend on input 1"):
        nanonet.grad((x * 2).sum(), [x, z])
    g = nanonet.grad((x * 2).sum(), [x, z], allow_unused=True)
    assert g[1] is None


def test_higher_derivatives(backend_in_use):
    x = leaf(2.0, dtype="float64")
    y = (x**5).sum()
    for expected in (80, 160, 240, 240):
        (y,) = nanonet.grad(y.sum(), x, create_graph=True)
        assert y.item() == pytest.approx(expected)
    (without,) = nanonet.grad((x * x).sum(), x)
    assert not without.requires_grad


def test_hessian_vector_product(backend_in_use):
    x = leaf(1.0, 2.0, dtype="float64")
    y = (x[0] * x[0] * x[1]).sum()  # Hessian ((2 x1, 2 x0), (2 x0, 0))
    (g,) = nanonet.grad(y, x, create_graph=True)
    (hv,) = nanonet.grad(g, x, nanonet.tensor([1.0, 10.0], dtype="float64"))
    np.testing.assert_allclose(hv.numpy(), [24, 2])


# ------------------------------------------------------------------------------------ hooks


def test_hooks_see_and_change_gradients(backend_in_use):
    x = leaf(1.0)
    h = x * 2
    seen = []
    remove = h.register_hook(lambda g: seen.append(g.item()))
    h.register_hook(lambda g: g * 10)
    (h * 3).sum().backward()
    assert seen == [3] and x.grad.item() == 60
    remove()
    y = leaf(1.0)
    y.register_hook(lambda g: g * 5)
    (y * 2).sum().backward()
    assert y.grad.item() == 10
    assert seen == [3]
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        nanonet.tensor([1.0]).register_hook(lambda g: g)


def test_a_hook_runs_once_on_the_whole_gradient(backend_in_use):
    x = leaf(1.0)
    h = x * 1
    seen = []
    h.register_hook(lambda g: seen.append(g.item()))
    (h * 2 + h * 3).sum().backward()
    assert seen == [5] and x.grad.item() == 5


def test_what_a_hook_returns_is_not_written_to(backend_in_use):
    x, fixed = leaf(1.0), nanonet.tensor([7.0])
    x.register_hook(lambda g: fixed)
    (x * 1).sum().backward()
    (x * 1).sum().backward()
    assert fixed.item() == 7 and x.grad.item() == 14


# --------------------------------------------------------------------------------- Function


class Cube(Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x * x * factor

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * ctx.factor * x * x, None


class Pass(Function):
    """Returns its input, and as gradient a tensor that it saved."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(w)
        return x

    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0], g


def test_a_function_of_the_user(backend_in_use):
    x = leaf(1.0, 2.0, dtype="float64")
    y = Cube.apply(x, 2.0)
    assert "Cube" in repr(y)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [6, 24])
    assert gradcheck(lambda x: Cube.apply(x, 2.0), x)
    assert gradgradcheck(lambda x: Cube.apply(x, 2.0), x)


def test_a_function_may_return_what_it_was_given(backend_in_use):
    x, w = leaf(1.0), leaf(5.0)
    Pass.apply(x, w).sum().backward()
    Pass.apply(x, w).sum().backward()
    assert (w.item(), x.grad.item(), w.grad.item()) == (5, 10, 2)
    assert x.is_leaf
    constant = nanonet.tensor([1.0])
    assert Pass.apply(constant, w).requires_grad and constant.is_leaf and not constant.requires_grad


def test_a_wrong_function_is_named():
    class Few(Cube):
        @staticmethod
        def backward(ctx, g):
            return g

    class Wrong(Cube):
        @staticmethod
        def backward(ctx, g):
            return g.sum(), None

    class Nothing(Function):
        @staticmethod
        def forward(ctx, x):
            return None

    with pytest.raises(ValueError, match="Few.backward returned 1 gradients for 2 arguments"):
        Few.apply(leaf(1.0, 2.0), 1.0).sum().backward()
    with pytest.raises(ShapeError, match=r"Wrong.backward: gradient 0 .* \(\), wanted .* \(2,\)"):
        Wrong.apply(leaf(1.0, 2.0), 1.0).sum().backward()
    with pytest.raises(TypeError, match="Nothing.forward returned NoneType"):
        Nothing.apply(leaf(1.0))


# -------------------------------------------------------------------------- detect_anomaly


def test_anomalies_are_found_where_they_arise(backend_in_use):
    x = leaf(-1.0, 1.0)
    y = x.sqrt()  # not looked at
    assert np.isnan(y.numpy()[0])
    with nanonet.detect_anomaly():
        with pytest.raises(FloatingPointError, match="NaN arose in the forward computation of sqrt"):
            x.sqrt()
        with pytest.raises(FloatingPointError, match="infinity arose in the forward computation of div"):
            x / 0
        zero = leaf(0.0)
        root = zero.sqrt()
        with pytest.raises(FloatingPointError, match="infinity arose in the backward computation of sqrt"):
            root.sum().backward()
        with pytest.raises(FloatingPointError, match="NaN arose in the forward computation of"):
            F.cross_entropy(nanonet.tensor([[np.nan, 1.0]]), [0])
    x.sqrt()


# ------------------------------------------------------------------------------ gradcheck


def test_gradcheck_wants_float64():
    with pytest.raises(TypeError, match="input 0 is float32, wanted float64"):
        gradcheck(lambda x: x * 2, leaf(1.0))


def test_gradgradcheck_finds_a_derivative_that_cannot_be_differentiated():
    @nanonet.autograd.op
    def square(x):
        return x.detach() * x.detach()

    square.rule = lambda g, out, x: (lambda: g * 2 * x.detach(),)
    x = leaf(1.0, 2.0, dtype="float64")
    assert gradcheck(square, x)
    with pytest.raises(AssertionError):
        gradgradcheck(lambda x: square(x) * x, x)
