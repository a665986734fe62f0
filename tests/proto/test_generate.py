"""What stands beside chat.proto is what it generates now, and it is documented and numbered as promised."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from proto import chat_pb2
from proto.generate import GENERATED, ROOT, generate


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "proto").mkdir()
    assert generate(folder) == 0
    return folder / "proto"


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_committed_is_what_the_generator_makes_now(fresh: Path, name: str) -> None:
    assert (ROOT / "proto" / name).read_bytes() == (fresh / name).read_bytes(), "run: python -m proto.generate"


def test_nothing_else_is_generated(fresh: Path) -> None:
    assert {file.name for file in fresh.iterdir()} == set(GENERATED)


def test_the_contracts_fields_have_the_contracts_numbers() -> None:
    promised = {
        "JoinRequest": {"user": 1, "room": 2},
        "JoinReply": {"session_token": 1},
        "HistoryRequest": {"user": 1, "room": 2, "after_sequence": 3, "limit": 4},
        "ChatMessage": {"user": 1, "room": 2, "text": 3, "sequence": 4, "time_ms": 5, "client_message_id": 6},
    }
    for name, fields in promised.items():
        described = chat_pb2.DESCRIPTOR.message_types_by_name[name].fields
        assert fields.items() <= {field.name: field.number for field in described}.items()
    service = chat_pb2.DESCRIPTOR.services_by_name["ChatService"]
    assert service.full_name == "minichat.v1.ChatService"
    kinds = {method.name: (method.client_streaming, method.server_streaming) for method in service.methods}
    assert kinds == {"Join": (False, False), "History": (False, True), "Chat": (True, True)}


def descriptor_set() -> FileDescriptorSet:
    return FileDescriptorSet.FromString((ROOT / "proto" / "minichat.binpb").read_bytes())


def test_the_descriptor_set_has_the_file_alone_as_it_imports_nothing() -> None:
    assert [file.name for file in descriptor_set().file] == ["proto/chat.proto"]


def test_everything_in_the_proto_has_a_comment_which_the_descriptor_set_carries() -> None:
    """Paths are those of descriptor.proto: 4 message, 2 its field; 6 service, 2 its method."""
    (file,) = descriptor_set().file
    commented = {tuple(at.path) for at in file.source_code_info.location if at.leading_comments.strip()}
    wanted: dict[tuple[int, ...], str] = {}
    for m, message in enumerate(file.message_type):
        wanted |= {(4, m, 2, f): f"{message.name}.{field.name}" for f, field in enumerate(message.field)}
    for s, service in enumerate(file.service):
        wanted[6, s] = service.name
        wanted |= {(6, s, 2, m): f"{service.name}.{method.name}" for m, method in enumerate(service.method)}
    assert [name for path, name in wanted.items() if path not in commented] == []
