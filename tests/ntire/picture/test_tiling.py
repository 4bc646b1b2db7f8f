import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ntire.picture.tiling import overlapping, pad_reflect, spans, tiled


@given(
    cells=st.integers(1, 60),
    tile=st.integers(1, 90),
    halo=st.integers(0, 40),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_spans_cover_every_pixel_once_on_the_grid_and_are_equal(cells, tile, halo, stride):
    length = cells * stride
    row = spans(length, tile, halo, stride)
    assert [pixel for span in row for pixel in range(span.start, span.stop)] == list(range(length))
    sizes = [span.stop - span.start for span in row]
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0] <= max(tile, stride)
    for span in row:
        assert span.start % stride == span.first % stride == span.last % stride == 0
        assert span.first == max(span.start - -(-halo // stride) * stride, 0)
        assert span.last >= min(span.stop + halo, length)


def test_there_are_as_few_tiles_as_the_size_allows():
    assert len(spans(4096, 512, 36, 4)) == 8
    assert len(spans(4096, 4096, 36, 4)) == 1
    # Equal sizes: not seven tiles of 512 and a sliver.
    assert [span.stop - span.start for span in spans(3600, 512, 36, 4)] == [452] * 7 + [436]


@given(
    cells=st.integers(1, 60),
    tile=st.integers(1, 90),
    halo=st.integers(0, 40),
    stride=st.sampled_from([1, 2, 4, 8]),
    part=st.tuples(st.integers(0, 59), st.integers(1, 60)),
)
def test_spans_of_one_size_see_at_least_their_halo_and_never_past_the_border(cells, tile, halo, stride, part):
    length = cells * stride
    begin = min(part[0], cells - 1) * stride
    end = min(begin + part[1] * stride, length)
    row = spans(length, tile, halo, stride, within=(begin, end), same_size=True)
    assert [pixel for span in row for pixel in range(span.start, span.stop)] == list(range(begin, end))
    assert len({span.last - span.first for span in row}) == 1
    for span in row:
        assert span.first % stride == span.last % stride == 0
        assert 0 <= span.first <= max(span.start - halo, 0)
        assert min(span.stop + halo, length) <= span.last <= length


class UNet(nn.Module):
    """Local, with a stride of 4 and a reach of 22: two levels of strided and transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.up = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 3, 2, 2)
        )

    def forward(self, x):
        return x + self.up(self.down(x))


@given(height=st.integers(1, 90), width=st.integers(1, 90), tile=st.sampled_from([8, 16, 20, 64]))
@settings(max_examples=40)
@torch.no_grad()
def test_tiles_of_a_local_network_give_the_whole_image_at_any_size(height, width, tile):
    torch.manual_seed(0)
    network, lq = UNet(), torch.rand(3, height, width)
    whole = tiled(network, lq, tile=None, halo=24, stride=4)
    assert whole.shape == lq.shape
    # For pieces of a few pixels the CPU library may sum in another order.
    assert torch.allclose(tiled(network, lq, tile=tile, halo=24, stride=4), whole, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("blend", [False, True])
def test_a_reflected_border_hides_padding_with_zeros(blend):
    blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    nn.init.constant_(blur.weight, 1 / 9)
    gray = torch.full((3, 37, 45), 0.5)
    for tile in (None, 16):
        with_line, without = (
            tiled(blur, gray, tile=tile, halo=4, stride=4, border=border, blend=blend) for border in (0, 1)
        )
        assert float(with_line[:, 0].max()) < 0.4
        assert without.shape == gray.shape
        assert torch.allclose(without, gray)


@torch.no_grad()
def test_tiles_as_large_as_those_that_run_give_the_very_bits():
    torch.manual_seed(0)
    network, lq = UNet(), torch.rand(3, 603, 802)
    whole = tiled(network, lq, tile=None, halo=24, stride=4)
    assert torch.equal(tiled(network, lq, tile=256, halo=24, stride=4), whole)


@torch.no_grad()
def test_tiles_that_go_through_together_give_the_very_bits():
    torch.manual_seed(0)
    network, lq = UNet(), torch.rand(3, 603, 802)
    sizes = []

    def watched(pieces):
        sizes.append(tuple(pieces.shape))
        return network(pieces)

    whole = tiled(network, lq, tile=None, halo=24, stride=4)
    together = tiled(watched, lq, tile=256, halo=24, stride=4, batch=5, same_size=True)
    assert torch.equal(together, whole)
    assert sizes == [(5, 3, 252, 252), (5, 3, 252, 252), (2, 3, 252, 252)]


@torch.no_grad()
def test_a_halo_shorter_than_the_reach_shows():
    torch.manual_seed(0)
    network, lq = UNet(), torch.rand(3, 64, 64)
    whole = tiled(network, lq, tile=None, halo=24, stride=4)
    assert not torch.allclose(tiled(network, lq, tile=16, halo=4, stride=4), whole, atol=1e-4)


def test_tiles_off_the_grid_show_however_large_the_halo():
    lq = torch.rand(3, 60, 60)

    def pool(x):
        pooled = nn.functional.max_pool2d(x, 4, ceil_mode=True)
        return pooled.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., : x.shape[2], : x.shape[3]]

    whole = tiled(pool, lq, tile=None, halo=30, stride=1)
    assert not torch.allclose(tiled(pool, lq, tile=21, halo=30, stride=1), whole)
    assert torch.equal(tiled(pool, lq, tile=21, halo=30, stride=4), whole)


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("size", [(50, 70), (1, 1), (64, 9)])
def test_an_identity_network_gives_back_the_image_whatever_the_tiles(blend, size):
    lq = torch.rand(3, *size)
    for tile, halo in ((8, 0), (8, 4), (12, 16), (16, 3)):
        restored = tiled(lambda x: x, lq, tile=tile, halo=halo, stride=4, blend=blend)
        assert torch.allclose(restored, lq, atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory"),
        RuntimeError("DefaultCPUAllocator: no memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
@pytest.mark.parametrize(("blend", "batch"), [(False, 1), (False, 3), (True, 1)])
@pytest.mark.parametrize("tile", [None, 16])
def test_memory_that_runs_out_at_any_tile_leaves_no_pixel_wrong(blend, batch, tile, error):
    lq = torch.rand(3, 50, 71)
    calls, sides = 0, []

    def identity(pieces):
        nonlocal calls
        calls += 1
        if calls in failing:
            raise error
        return pieces.clone()

    def go():
        return tiled(
            identity, lq, tile=tile, halo=4, stride=2, blend=blend, batch=batch, same_size=batch > 1,
            shrunk=sides.append,
        )  # fmt: skip

    failing = set()
    go()
    assert calls >= 1
    for first in range(1, calls + 1):
        for failing in ({first}, {first, first + 1}, {first, first + 2}):
            calls = 0
            sides.clear()
            assert torch.allclose(go(), lq, atol=1e-6 if blend else 0)
            assert calls > len([call for call in failing if call <= calls])
            assert batch > 1 or sides, "smaller tiles are told to whom it may concern"


def test_tiles_shrink_until_they_fit_and_what_was_written_is_not_done_again():
    lq = torch.rand(3, 64, 96)
    fits, sides, done = 24, [], []

    def identity(pieces):
        if max(pieces.shape[-2:]) > (64 if len(done) < 2 else fits):
            raise torch.OutOfMemoryError
        done.append(pieces.shape[-2] * pieces.shape[-1])
        return pieces

    restored = tiled(identity, lq, tile=32, halo=0, stride=4, shrunk=sides.append)
    assert torch.equal(restored, lq)
    assert sides == [16]
    assert sum(done) == 64 * 96


def test_an_error_that_is_not_about_memory_and_tiles_that_never_fit_are_raised():
    def broken(pieces):
        raise RuntimeError("size of tensor a must match")

    def never(pieces):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(RuntimeError, match="size of tensor a must match"):
        tiled(broken, torch.rand(3, 16, 16), tile=8, halo=0, stride=1)
    for blend in (False, True):
        with pytest.raises(torch.OutOfMemoryError, match="the memory does not suffice for tiles of"):
            tiled(never, torch.rand(3, 16, 16), tile=8, halo=0, stride=1, blend=blend)


def test_what_a_failed_tile_held_is_free_before_the_next_is_tried():
    held, alive = [], []

    def greedy(pieces):
        alive.append(sum(reference() is not None for reference in held))
        activations = pieces + 1
        held.append(weakref.ref(activations))
        if len(held) == 1:
            raise torch.OutOfMemoryError
        return activations - 1

    tiled(greedy, torch.rand(3, 16, 16), tile=8, halo=0, stride=1)
    assert alive[0] == alive[1] == 0


def test_rounding_is_done_on_the_pieces_and_gives_what_the_whole_would():
    lq = torch.rand(3, 40, 56)
    shapes = []

    def rounded(piece):
        shapes.append(tuple(piece.shape))
        return (piece * 255).round().to(torch.uint8)

    pieces = tiled(lambda x: x, lq, tile=16, halo=4, stride=1, finish=rounded)
    assert torch.equal(pieces, (lq * 255).round().to(torch.uint8))
    assert set(shapes) == {(3, 14, 14)} | {(3, 12, 14)}
    # As a file has it, so that it can be handed over without being turned around.
    assert pieces.permute(1, 2, 0).is_contiguous()
    assert tiled(lambda x: x, lq, tile=16, halo=4, stride=1, blend=True, finish=rounded).dtype == torch.uint8


def test_blending_a_global_network_leaves_no_step_at_the_cuts():
    lq = torch.linspace(0, 1, 128).expand(3, 32, 128)

    def darken_by_mean(x):
        return x - x.mean()

    def largest_step(image):
        return float((image[:, :, 1:] - image[:, :, :-1]).abs().max())

    cut = tiled(darken_by_mean, lq, tile=32, halo=16, stride=4)
    blended = tiled(darken_by_mean, lq, tile=32, halo=16, stride=4, blend=True)
    assert largest_step(cut) > 0.1
    assert largest_step(blended) < 0.03


@given(
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    pads=st.tuples(*[st.integers(0, 30)] * 4),
)
def test_reflected_padding_keeps_the_colours_of_a_mosaic_in_step(size, pads):
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    colour = (rows % 2 * 2 + columns % 2).float()[None]
    left, right, top, bottom = pads
    padded = pad_reflect(colour, left, right, top, bottom)[0]
    rows, columns = torch.meshgrid(
        torch.arange(-top, size[0] + bottom), torch.arange(-left, size[1] + right), indexing="ij"
    )
    assert torch.equal(padded, (rows % 2 * 2 + columns % 2).float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_padding_is_pytorch_s_reflection_for_every_dtype(dtype):
    image = torch.randint(0, 255, (3, 7, 9)).to(dtype)
    expected = nn.functional.pad(image.float()[None], (2, 5, 6, 1), mode="reflect")[0]
    assert torch.equal(pad_reflect(image, 2, 5, 6, 1).float(), expected)
    assert pad_reflect(image, 2, 5, 6, 1).dtype == dtype


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    tile=st.integers(4, 24),
    overlap=st.integers(0, 3),
)
def test_overlapping_tiles_are_averaged_to_what_they_agree_on(size, tile, overlap):
    x = torch.rand(2, 3, *size)
    sizes = []

    def doubled(piece):
        sizes.append(tuple(piece.shape[-2:]))
        return torch.cat([piece, piece], dim=1)

    averaged = overlapping(doubled, x, tile=tile, overlap=overlap)
    assert torch.allclose(averaged, torch.cat([x, x], dim=1), atol=1e-6)
    assert set(sizes) == {(min(size[0], tile), min(size[1], tile))}


def test_overlapping_tiles_that_disagree_are_mixed_along_a_ramp():
    numbers = iter((0.0, 1.0))
    mixed = overlapping(
        lambda piece: torch.full_like(piece, next(numbers)), torch.zeros(1, 1, 1, 12), tile=8, overlap=4
    )
    assert mixed.flatten().tolist() == pytest.approx([0] * 4 + [0.2, 0.4, 0.6, 0.8] + [1] * 4)


def test_a_single_pixel_is_repeated():
    assert torch.equal(pad_reflect(torch.full((3, 1, 1), 0.5), 0, 3, 0, 3), torch.full((3, 4, 4), 0.5))


def test_tiles_of_several_sizes_are_never_put_into_one_batch():
    """In tiles of 20, the areas at the borders are smaller than those in the middle."""
    areas = []

    def network(x):
        areas.append(tuple(x.shape))
        return x * 2

    lq = torch.rand(3, 59, 117)
    restored = tiled(network, lq, tile=20, halo=4, stride=1, batch=4)
    assert torch.equal(restored, lq * 2)
    assert len({shape[2:] for shape in areas}) > 1, "there were several sizes"
    assert max(shape[0] for shape in areas) > 1, "some tiles went together"


@pytest.mark.parametrize("stride", [4, 8])
def test_tiles_that_are_halved_stay_on_the_grid(stride):
    sides = []

    def network(x):
        if x.shape[-1] > 12 * stride:
            raise torch.OutOfMemoryError
        return x

    tiled(
        network, torch.rand(3, 25 * stride, 25 * stride), tile=23 * stride, halo=0, stride=stride, shrunk=sides.append
    )
    assert sides == [11 * stride]


def test_the_outer_half_of_a_halo_is_thrown_away_where_tiles_are_blended():
    """A network that is wrong within half a halo of the borders of what it sees: only the picture's own border shows it."""
    halo = 16

    def network(x):
        spoiled = torch.full_like(x, 100.0)
        inside = slice(halo // 2, -(halo // 2))
        spoiled[..., inside, inside] = x[..., inside, inside]
        return spoiled

    lq = torch.rand(3, 96, 96)
    restored = tiled(network, lq, tile=32, halo=halo, stride=1, blend=True)
    assert torch.allclose(restored[:, 8:-8, 8:-8], lq[:, 8:-8, 8:-8], atol=1e-5)


@pytest.mark.parametrize("blend", [False, True])
def test_who_listens_hears_each_tile_and_how_many_there_are_after_they_were_halved(blend):
    heard = []

    def network(pieces):
        if pieces.shape[-1] > 16:
            raise torch.OutOfMemoryError("too large")
        return pieces

    lq = torch.rand(3, 32, 48)
    tiled(network, lq, tile=32, halo=0, stride=4, blend=blend, advanced=lambda done, of: heard.append((done, of)))
    count = len(heard)
    assert count in (6, 8)
    assert heard == [(done, count) for done in range(1, count + 1)]


class Enlarging(nn.Module):
    """Local, x`scale`, with a reach of 3: three convolutions and a pixel shuffle."""

    def __init__(self, scale):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 3 * scale**2, 3, 1, 1),
            nn.PixelShuffle(scale),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("scale", [2, 3, 4])
@given(height=st.integers(1, 40), width=st.integers(1, 40), tile=st.integers(6, 30), same_size=st.booleans())
@settings(max_examples=12)
@torch.no_grad()
def test_tiles_of_an_enlarging_network_are_0_levels_off_the_whole_image(scale, height, width, tile, same_size):
    torch.manual_seed(0)
    network, lq = Enlarging(scale), torch.rand(3, height, width)

    def levels(piece):
        return (piece * 60 + 128).clamp(0, 255).round().to(torch.uint8)

    whole = tiled(network, lq, tile=None, halo=3, stride=1, scale=scale, finish=levels)
    assert whole.shape == (3, scale * height, scale * width)
    pieces = tiled(network, lq, tile=tile, halo=3, stride=1, scale=scale, same_size=same_size, finish=levels)
    assert torch.equal(pieces, whole)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_blended_tiles_of_an_enlarging_network_weigh_every_pixel_by_1(scale):
    lq = torch.rand(3, 41, 30)

    def nearest(x):
        return x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    pieces = tiled(nearest, lq, tile=16, halo=8, stride=2, scale=scale, blend=True)
    assert torch.allclose(pieces, nearest(lq[None])[0], atol=1e-6)


def test_a_network_of_another_scale_is_told_and_memory_that_runs_out_halves_tiles_of_the_input():
    with pytest.raises(ValueError, match="returned 16 x 24 for an input of 8 x 12 and a scale of 4"):
        tiled(Enlarging(2), torch.rand(3, 8, 12), tile=None, halo=3, stride=1, scale=4)
    network, lq, shrunk = Enlarging(4), torch.rand(3, 40, 40), []

    def small_only(x):
        if x.shape[-1] > 20:
            raise torch.OutOfMemoryError("full")
        return network(x)

    with torch.no_grad():
        found = tiled(small_only, lq, tile=None, halo=3, stride=1, scale=4, shrunk=shrunk.append)
        assert torch.allclose(found, network(lq[None])[0], atol=1e-6)
    assert shrunk == [20, 10]
