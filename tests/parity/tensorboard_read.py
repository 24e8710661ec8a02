#!/usr/bin/env python3
"""TensorBoard reads Bracket's event files: checksums, values, picture, and the purge at a resume.

usage: tensorboard_read.py PATH_OF_files_exchange
Exit status: 0 passed, 1 failed, 77 the tensorboard module is missing.
"""
import glob
import os
import struct
import subprocess
import sys
import tempfile
import zlib

try:
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.backend.event_processing import event_file_loader
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(3 * width) for _ in range(height))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        picture, run = os.path.join(folder, "p.png"), os.path.join(folder, "run")
        os.mkdir(run)
        with open(picture, "wb") as stream:
            stream.write(png(6, 4))
        subprocess.run([program, "events", run, picture], check=True)

        files = sorted(glob.glob(os.path.join(run, "*tfevents*")))
        assert len(files) == 2, files
        counts = [len(list(event_file_loader.EventFileLoader(name).Load())) for name in files]
        assert counts == [2 + 5, 2 + 2 + 1], counts

        accumulator = event_accumulator.EventAccumulator(run)
        accumulator.Reload()
        assert accumulator.file_version == 2.0, accumulator.file_version
        tags = accumulator.Tags()
        points = [(e.step, e.value) for e in accumulator.Scalars("loss")] if "loss" in tags["scalars"] else [
            (e.step, float(e.tensor_proto.float_val[0])) for e in accumulator.Tensors("loss")]
        f32 = lambda x: struct.unpack("<f", struct.pack("<f", x))[0]
        assert points == [(0, 1.0), (1, 0.5), (2, f32(1 / 3)), (3, -3.0), (4, -4.0)], points
        if "density" in tags["images"]:
            image = accumulator.Images("density")[0]
            width, height, encoded = image.width, image.height, image.encoded_image_string
        else:
            values = accumulator.Tensors("density")[0].tensor_proto.string_val
            width, height, encoded = int(values[0]), int(values[1]), values[2]
        assert (width, height, encoded) == (6, 4, png(6, 4)), (width, height)
    print("passed: TensorBoard reads scalars, picture and resume")


if __name__ == "__main__":
    main()
