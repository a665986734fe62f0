"""Makes what stands beside chat.proto out of it: the stubs, their types, and the descriptor set.

    python -m proto.generate

The generated files are committed, so that running the kit needs no generator; a test makes them again and compares.
`minichat.binpb` is a FileDescriptorSet with the proto's comments in it: programs that decode any gRPC service by its
description read it as data.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("chat_pb2.py", "chat_pb2.pyi", "chat_pb2_grpc.py", "chat_pb2_grpc.pyi", "minichat.binpb")


def generate(root: Path) -> int:
    """Writes GENERATED to the folder `proto` in `root`, which must exist; returns protoc's exit status."""
    from grpc_tools import protoc

    scripts = Path(sysconfig.get_path("scripts"))
    suffix = ".exe" if sys.platform == "win32" else ""
    return int(
        protoc.main(
            [
                "protoc",
                f"-I{ROOT}",
                *(
                    f"--plugin={name}={scripts / (name + suffix)}"
                    for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
                ),
                *(f"--{kind}_out={root}" for kind in ("python", "grpc_python")),
                *(f"--{kind}_out=quiet:{root}" for kind in ("mypy", "mypy_grpc")),
                f"--descriptor_set_out={root / 'proto' / 'minichat.binpb'}",
                "--include_imports",
                "--include_source_info",
                str(ROOT / "proto" / "chat.proto"),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(generate(ROOT))
