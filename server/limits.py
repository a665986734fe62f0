"""How much of the server one member, one room and all together may take, in room and in time.

Who breaks one of these is told with RESOURCE_EXHAUSTED, or DEADLINE_EXCEEDED where it is a time, and one sentence. The
lengths of names and texts are the contract's, in kit/rules.py. A server's `limits` may have other values than these.
"""

from __future__ import annotations

from dataclasses import dataclass

from kit.pace import MESSAGES_PER_SECOND

ROOMS = 1_000
"""Rooms remembered at once: a course's worth, 16 GB if somebody fills each with the longest texts. Beyond, the empty
room that was used least recently is forgotten."""
MEMBERS = 5_000
"""Members of one room: each of its messages is sent so often."""
CONNECTIONS = 10_000
"""Clients' connections with a chat on them: some 350 MB."""
MESSAGE_OCTETS = 65_536
"""Of one request: four times what the contract allows (16 kB of text), so that what is a little too long still gets
the contract's own sentence. grpc-core refuses more in its own words, before it is in memory."""
OUT_QUEUE_LENGTH = 1_000
"""Messages that may wait for one member: twice the history, 16 MB of the longest texts. Who is that far behind does
not read."""
PACE = 100
"""Messages that may wait for a sender itself before its next one is taken: far below OUT_QUEUE_LENGTH, so that members
who read are not dropped because one sends faster than the server distributes."""
FIRST_MESSAGE_SECONDS = 10.0
"""How long a Chat call may be open without saying whose it is, or with threads any other without its request."""
STALL_SECONDS = 10.0
"""How long a member may take to read what is left when its call ends, or a sender to read until PACE is kept."""
HISTORY_SECONDS = 10.0
"""How long a History call may take: 8 MB at most, 6.4 Mbit/s."""
CUT_SECONDS = 0.005
"""A connection that is cut looks like a client that closes its sending side, until grpc-core tells that the call is
over, a moment later."""


@dataclass(frozen=True)
class Limits:
    """None is no limit."""

    rooms: int = ROOMS
    members: int = MEMBERS
    """Per room."""
    connections: int = CONNECTIONS
    rate: float | None = MESSAGES_PER_SECOND
    """Messages per second from one member, lasting."""
    idle: float | None = None
    """Seconds after which a member who says nothing is out."""
    waiting: int = OUT_QUEUE_LENGTH
    first_message: float = FIRST_MESSAGE_SECONDS
    stall: float = STALL_SECONDS
    history: float = HISTORY_SECONDS
