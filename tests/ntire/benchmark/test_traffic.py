import torch
from torch import nn

from ntire.benchmark.traffic import of_network


def test_traffic_is_what_operators_read_and_write_and_only_some_cannot_be_fused():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.ReLU()).to("meta")
    values = 4 * 8 * 10
    convolved = (3 + 5) * values + 4 * 5 * 3 * 9
    found = of_network(net, torch.empty(1, 3, 8, 10, device="meta"))
    assert (found.fused, found.eager) == (convolved, convolved + 2 * 5 * values)
