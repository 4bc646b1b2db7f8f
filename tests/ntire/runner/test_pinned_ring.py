import gc
import threading

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntire.runner.pinned_ring import PinnedRing


def ring(budget):
    """Of memory that is not pinned, which no machine without a GPU has."""
    return PinnedRing(budget, lambda size: torch.zeros(size, dtype=torch.uint8))


def place(tensor):
    return tensor.untyped_storage().data_ptr()


def test_a_tensor_has_size_dtype_and_layout_of_the_other():
    whole = ring(1 << 20)
    for like in (
        torch.rand(3, 7, 5),
        torch.randint(0, 9, (7, 5, 3), dtype=torch.uint8).permute(2, 0, 1),
        torch.ones((), dtype=torch.bool),
        torch.randint(0, 9, (1, 8, 6)).to(torch.uint16),
    ):
        copied = whole.take(like).copy_(like)
        assert torch.equal(copied, like)
        assert copied.dtype == like.dtype
        assert copied.stride() == like.stride()


def test_memory_is_used_again_when_the_last_view_is_gone_and_not_before():
    whole = ring(8192)
    like = torch.empty(4096, dtype=torch.uint8)
    first, second = whole.take(like), whole.take(like)
    where = place(second)
    assert whole.take(like) is None
    kept = second.view(64, 64).T.numpy()
    del second
    gc.collect()
    assert whole.take(like) is None
    del kept
    third = whole.take(like)
    assert place(third) == where != place(first)
    assert whole.bytes == 8192


def test_what_is_larger_than_the_budget_or_what_the_system_refuses_finds_no_room():
    whole = ring(8192)
    assert whole.take(torch.empty(8193, dtype=torch.uint8)) is None

    def refused(size):
        raise RuntimeError("CUDA error: out of memory")

    assert PinnedRing(8192, refused).take(torch.empty(3)) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(0, 5)), min_size=1, max_size=40))
def test_no_two_tensors_share_a_byte_and_the_budget_holds(asked):
    whole, alive = ring(3 << 14), []
    for number, (size, kept) in enumerate(asked):
        found = whole.take(torch.empty(size, dtype=torch.uint8))
        if found is not None:
            assert place(found) % 16 == 0
            alive.append((number, found.fill_(number)))
        alive = alive[-kept:] if kept else []
        assert all(bool((tensor == mark).all()) for mark, tensor in alive)
    assert whole.bytes <= 3 << 14


def test_six_pictures_of_12_megapixels_take_no_power_of_two_each():
    picture = torch.empty(3, 3072, 4096, dtype=torch.uint8, device="meta")
    made = []

    def counted(size):
        made.append(size)
        return torch.empty(size, dtype=torch.uint8)  # pages that nobody writes to take no memory

    whole = PinnedRing(256 << 20, counted)
    held = [whole.take(picture) for _ in range(6)]
    assert all(one is not None for one in held)
    assert sum(made) <= 256 << 20 < 6 * (64 << 20)


def test_threads_take_and_give_back_at_once():
    whole, wrong = ring(1 << 16), []

    def work(mark):
        for turn in range(200):
            found = whole.take(torch.empty(1 + turn * 37 % 5000, dtype=torch.uint8))
            if found is not None and not bool((found.fill_(mark) == mark).all()):
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    gc.collect()
    # Every slab is one piece again; how large they are is chance, as threads ask in any order.
    held, before = [], whole.bytes
    for slab in sorted(whole._slabs, key=lambda one: one.size, reverse=True):
        held.append(whole.take(torch.empty(slab.size, dtype=torch.uint8)))
    assert all(one is not None for one in held)
    assert whole.bytes == before
