#!/usr/bin/env python3
"""Arrays of NumPy go through Bracket's .npy and .csv readers and its .npy writer and come back bit for bit.

usage: npy_roundtrip.py PATH_OF_files_exchange
Exit status: 0 passed, 1 failed, 77 the numpy module is missing.
"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy
    import numpy.lib.format
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def main():
    program = sys.argv[1]
    rng = numpy.random.default_rng(11)
    num_cases = 0
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in.npy"), os.path.join(folder, "out.npy")
        for dtype in ("<f4", ">f4", "<f8", ">f8"):
            for shape in ((1,), (7,), (1, 1), (5, 3), (3, 5), (100, 64)):
                for order in ("C", "F"):
                    for version in ((1, 0), (2, 0), (3, 0)):
                        array = numpy.asarray(rng.standard_normal(shape).astype(dtype), order=order)
                        with open(source, "wb") as stream:
                            numpy.lib.format.write_array(stream, array, version=version)
                        subprocess.run([program, array.dtype.name, source, target], check=True)
                        back = numpy.load(target)
                        expected = array.reshape(-1, 1) if array.ndim == 1 else array
                        assert back.dtype == numpy.dtype("<" + dtype[1:]), (back.dtype, dtype)
                        assert back.shape == expected.shape and (back == expected).all(), (dtype, shape, order, version)
                        num_cases += 1
        table = rng.standard_normal((40, 3))
        source = os.path.join(folder, "in.csv")
        for header in ("", "x,y,z"):
            for newline in ("\n", "\r\n"):
                numpy.savetxt(source, table, delimiter=",", header=header, newline=newline, fmt="%.17g")
                subprocess.run([program, "float64", source, target], check=True)
                assert (numpy.load(target) == table).all()
                num_cases += 1
    print(f"passed: numpy {numpy.__version__}, {num_cases} files")


if __name__ == "__main__":
    main()
