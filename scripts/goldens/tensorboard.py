#!/usr/bin/env python3
"""Writes test/golden/tensorboard.tfevents: event records encoded here, independently of core/io/tensorboard.cpp.

Python's standard library alone. Protocol buffers by the wire format, CRC-32C bit by bit, framing as in TensorFlow's
record_writer.h. The records are those of the test "event records have the bytes that the generator wrote".
"""
import pathlib
import struct


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            low = (crc ^ (byte >> bit)) & 1
            crc >>= 1
            if low:
                crc ^= 0x82F63B78
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15) + (crc << 17) + 0xA282EAD8) % 2**32)


def varint(x):
    groups = []
    while True:
        groups.append(x % 128)
        x //= 128
        if x == 0:
            break
    return bytes([g + 128 for g in groups[:-1]] + [groups[-1]])


def message(fields):
    """fields: (number, value); the wire type follows from the value's Python type, floats say which with a pair."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number * 8 + 0) + varint(value)
        elif isinstance(value, bytes):
            out += varint(number * 8 + 2) + varint(len(value)) + value
        elif value[0] == "double":
            out += varint(number * 8 + 1) + struct.pack("<d", value[1])
        else:
            out += varint(number * 8 + 5) + struct.pack("<f", value[1])
    return out


def record(fields):
    data = message(fields)
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def scalars(values):
    return message([(1, message([(1, tag.encode()), (2, ("float", value))])) for tag, value in values])


one = [("train/loss", 2.5)]
several = [("train/loss", 0.1), ("train/lr", 2e-5), ("ünïcode", -1e30)]
wide = [("x" * 300, float("inf"))]
out = b"".join([
    record([(1, ("double", 1700000000.25)), (3, b"brain.Event:2")]),
    record([(1, ("double", 1700000001.5)), (2, 101), (7, message([(1, 1)]))]),
    record([(1, ("double", 1700000002.0)), (2, 1), (5, scalars(one))]),
    record([(1, ("double", 1700000003.0)), (5, scalars(one))]),
    record([(1, ("double", 1700000004.125)), (2, 2**40), (5, scalars(several))]),
    record([(1, ("double", 1700000005.0)), (2, 300), (5, scalars(wide))]),
])
target = pathlib.Path(__file__).parents[2] / "test/golden/tensorboard.tfevents"
target.parent.mkdir(exist_ok=True)
target.write_bytes(out)
