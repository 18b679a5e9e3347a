"""The runtime alone: no exporter is imported with it, and the exporter is whole when it is imported later."""

import subprocess
import sys

from edgegen.support.isolation import environment

PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
from edgegen.exporters.executorch.runtime_import import without_exporter
with without_exporter():
    from executorch.runtime import Runtime
assert not [name for name in sys.modules if name.startswith("executorch.exir")]
alone = sorted(Runtime.get().operator_registry.operator_names)
from executorch.exir import to_edge_transform_and_lower
import executorch.exir._warnings
with without_exporter():
    from executorch.runtime import Runtime
assert "executorch.exir" in sys.modules
print(len(alone), alone == sorted(Runtime.get().operator_registry.operator_names))
"""


def test_the_exporter_stays_out_until_it_is_wanted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    count, same = done.stdout.split()
    assert int(count) > 100
    assert same == "True"
