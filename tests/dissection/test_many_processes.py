"""A dissection by one process of four devices and by four of one: the same integers and tables."""

import dissection_jobs
import jobs
import numpy as np
import pytest

from mixaug_jax.core import walk

WORK = """
import pathlib, dissection_jobs
dissection_jobs.keep(pathlib.Path("."))
"""

ONE = """
import pathlib, time, dissection_jobs, planted
from mixaug_jax import dissection
from mixaug_jax.core import files
create = files.create
def late(path):
    time.sleep(0 if me == 3 else 1)  # who has no image begins its file after the others have filled theirs
    return create(path)
files.create = late
net = planted.net(dissection_jobs.Noise())
maps = dissection.make_label_maps(planted.source(1), net.preprocess, pathlib.Path("labels"), size=16)
print(maps.maps.shape, int(maps.maps.max()))
"""


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What this process finds on its four devices."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "LIMIT", walk.LIMIT)  # put back in the end
        dissection_jobs.keep(folder)
    return arrays(folder / "all-0.npz")


def test_the_same_bits_in_every_process(alone, tmp_path):
    ended = jobs.run(tmp_path, WORK, processes=4)
    assert [one.code for one in ended] == [0] * 4, "".join(one.errors for one in ended)
    found = [arrays(tmp_path / f"all-{k}.npz") for k in range(4)]
    for one in found:
        assert one.keys() == alone.keys()
        for name in alone.keys() - {"seconds", "segmented"}:
            assert one[name].dtype == alone[name].dtype, name
            np.testing.assert_array_equal(one[name], alone[name], err_msg=name)
    # The segmenter was asked for each image by one process.
    segmented = np.sort(np.concatenate([one["segmented"] for one in found]))
    assert segmented.tolist() == alone["segmented"].tolist()
    assert len(segmented) == dissection_jobs.IMAGES - 2
    seconds = [float(one["seconds"]) for one in found]
    print(f"CPU seconds: {', '.join(f'{s:.2f}' for s in seconds)}")
    assert max(seconds) < 3 * min(seconds)


def test_label_maps_of_one_image_by_four_processes(tmp_path):
    ended = jobs.run(tmp_path, ONE, processes=4)
    assert [one.code for one in ended] == [0] * 4, "".join(one.errors for one in ended)
    found = {one.output.splitlines()[-1] for one in ended}  # behind the runtime's own line
    assert found == {"(1, 16, 16, 2) 4"}
