"""What the chat keeps in Redis, and the scripts that change it. Each script is one step: Redis runs nothing else
meanwhile, and its append-only file has all of it or nothing, so that no server ever sees half a post.

Key (each after `minichat:{0}:`)  Type    Content                                        Who writes it, when it ends
--------------------------------  ------  ---------------------------------------------  ----------------------------
key                               string  what session tokens are signed with, in hex    the first server; never
servers                           zset    server -> until when it counts as alive (ms)   BEAT, every BEAT_SECONDS;
                                                                                         who is dead is taken out
rooms                             zset    room -> when somebody last came or left (ms)   ENTER, LEAVE; FORGET
room:NAME                         hash    epoch, newest (sequence), arrivals             ENTER, POST; FORGET
members:NAME                      hash    user -> "arrival session holder"               ENTER; LEAVE, PURGE
history:NAME                      stream  the HISTORY_LENGTH newest messages; an entry's POST; FORGET
                                          id is its sequence: 17-0 is message 17
sent:NAME                         zset    "user LF client_message_id" -> sequence, of    POST; with the message in the
                                          the messages in the history                    history
log                               stream  what happened in all rooms, LOG_LENGTH long:   POST, ENTER, RENEW; trimmed
                                          what every server reads
log:newest                        string  the number of the newest entry of the log      with the log

A server's name is its own for as long as it has been in touch without a break; a holder is one member of one server,
"SERVER.NUMBER". Times are Redis's own, so that servers' clocks need not agree. An epoch is the time when it began, so
that of two the later one is known.

The part in braces is a hash tag: Redis Cluster keeps keys of one tag on one node, where a script may use them together.
There is one tag today; more of them, each with a log of its own, would spread the rooms (docs/scaling.md).
"""

from __future__ import annotations

import hashlib

from server.rooms import HISTORY_LENGTH

PREFIX = "minichat:{0}:"
LOG_LENGTH = 32_768
"""Entries of the log: how far a server may be behind before it has to read histories instead. 10 MB of everyday
messages; 0.5 GB if all were the longest texts. Trimmed roughly, by whole nodes of the stream, which costs nothing."""

KEY = f"{PREFIX}key"
SERVERS = f"{PREFIX}servers"
ROOMS = f"{PREFIX}rooms"
LOG = f"{PREFIX}log"
LOG_NEWEST = f"{PREFIX}log:newest"


def room_key(room: str) -> str:
    return f"{PREFIX}room:{room}"


def members_key(room: str) -> str:
    return f"{PREFIX}members:{room}"


def history_key(room: str) -> str:
    return f"{PREFIX}history:{room}"


def sent_key(room: str) -> str:
    return f"{PREFIX}sent:{room}"


class Script:
    """Lua, with names for what it is called with: KEYS first, then ARGV."""

    def __init__(self, keys: str, arguments: str, body: str) -> None:
        self._keys = len(keys.split())
        self.text = f"local {', '.join(keys.split())} = unpack(KEYS)\n"
        if arguments:
            self.text += f"local {', '.join(arguments.split())} = unpack(ARGV)\n"
        self.text += _COMMON + body
        self._digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        """What Redis calls a script by that it was given once."""

    def __call__(self, *keys_and_arguments: str | int) -> tuple[str | int, ...]:
        """The command that runs it."""
        return ("EVALSHA", self._digest, self._keys, *keys_and_arguments)


_COMMON = f"""
local function now_ms()
  local now = redis.call('TIME')
  return string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000))
end
local function tell(log, log_newest, ...) -- every server
  redis.call('XADD', log, 'MAXLEN', '~', {LOG_LENGTH}, '*', 'number', redis.call('INCR', log_newest), ...)
end
"""

ENTER = Script(
    "room members rooms log log_newest",
    "name user session holder most_members most_rooms",
    """
-- Returns {'in', epoch, newest sequence}, or {why not}. May be repeated by the same holder.
local held = redis.call('HGET', members, user)
local arrival, whose, by
if held then
  arrival, whose, by = held:match('^(%d+) (%S+) (%S+)$')
  if whose ~= session then return {'taken'} end
elseif redis.call('HLEN', members) >= tonumber(most_members) then
  return {'full'}
end
if redis.call('EXISTS', room) == 0 then
  if redis.call('ZCARD', rooms) >= tonumber(most_rooms) then return {'rooms'} end
  redis.call('HSET', room, 'epoch', now_ms(), 'newest', 0)
end
redis.call('ZADD', rooms, now_ms(), name)
arrival = arrival or redis.call('HINCRBY', room, 'arrivals', 1)
redis.call('HSET', members, user, arrival .. ' ' .. session .. ' ' .. holder)
if by and by ~= holder then tell(log, log_newest, 'replaced', by) end
return {'in', redis.call('HGET', room, 'epoch'), redis.call('HGET', room, 'newest')}
""",
)

LEAVE = Script(
    "room members rooms",
    "name user holder",
    """
-- Unless the name is another holder's by now. A room in which nothing was said ends with its last member.
local held = redis.call('HGET', members, user)
if not held or held:match('%S+$') ~= holder then return 0 end
redis.call('HDEL', members, user)
if redis.call('EXISTS', members) == 0 and redis.call('HGET', room, 'newest') == '0' then
  redis.call('DEL', room)
  redis.call('ZREM', rooms, name)
else
  redis.call('ZADD', rooms, now_ms(), name)
end
return 1
""",
)

POST = Script(
    "room members history sent log log_newest",
    "name epoch user text id",
    f"""
-- Returns {{'new', reached, sequence, time_ms}}, {{'again', sequence, its fields}}, or {{'renewed'}} where the room has
-- another epoch than its member thinks.
if redis.call('HGET', room, 'epoch') ~= epoch then return {{'renewed'}} end
local earlier = id ~= '' and redis.call('ZSCORE', sent, user .. '\\n' .. id)
if earlier then
  return {{'again', earlier, redis.call('XRANGE', history, earlier, earlier)[1][2]}}
end
local sequence, time_ms = redis.call('HINCRBY', room, 'newest', 1), now_ms()
redis.call('XADD', history, 'MAXLEN', '=', {HISTORY_LENGTH}, sequence .. '-0',
  'time_ms', time_ms, 'user', user, 'text', text, 'id', id)
if id ~= '' then redis.call('ZADD', sent, sequence, user .. '\\n' .. id) end
redis.call('ZREMRANGEBYSCORE', sent, '-inf', sequence - {HISTORY_LENGTH})
tell(log, log_newest, 'room', name, 'epoch', epoch, 'sequence', sequence,
  'time_ms', time_ms, 'user', user, 'text', text, 'id', id)
return {{'new', redis.call('HLEN', members), sequence, time_ms}}
""",
)

RENEW = Script(
    "room history sent log log_newest",
    "name epoch sequence time_ms",
    """
-- A server has seen this epoch, and message `sequence` of `time_ms` in it. Where Redis has lost it, because it came
-- back without the end of what it had kept, numbers were given twice or will be. What is left is numbered again from
-- 1, in a new epoch.
-- Returns {epoch, newest sequence}, or {} where there is no such room.
local now = redis.call('HMGET', room, 'epoch', 'newest')
if not now[1] then return {} end
if tonumber(now[1]) > tonumber(epoch) then return now end
local seen = redis.call('XRANGE', history, sequence, sequence)[1]
local same = now[1] == epoch and (not seen or time_ms == '0' or seen[2][2] == time_ms)
if same and tonumber(now[2]) >= tonumber(sequence) then return now end
local kept = redis.call('XRANGE', history, '-', '+')
redis.call('DEL', history, sent)
for number, entry in ipairs(kept) do
  local fields = entry[2]
  redis.call('XADD', history, number .. '-0', unpack(fields))
  if fields[8] ~= '' then redis.call('ZADD', sent, number, fields[4] .. '\\n' .. fields[8]) end
end
local new_epoch = string.format('%d', math.max(now_ms(), epoch + 1))
redis.call('HSET', room, 'epoch', new_epoch, 'newest', #kept)
tell(log, log_newest, 'room', name, 'epoch', new_epoch, 'newest', #kept)
return {new_epoch, tostring(#kept)}
""",
)

FORGET = Script(
    "room members history sent rooms",
    "name",
    """
-- Unless somebody is there.
if redis.call('EXISTS', members) == 1 then return 0 end
redis.call('DEL', room, history, sent)
redis.call('ZREM', rooms, name)
return 1
""",
)

BEAT = Script(
    "servers",
    "server alive_ms",
    """
-- Returns whether this server still counted as alive, and those others that do not any more.
local now = now_ms()
local known = redis.call('ZSCORE', servers, server) and 1 or 0
redis.call('ZADD', servers, now + alive_ms, server)
return {known, redis.call('ZRANGEBYSCORE', servers, '-inf', now)}
""",
)

PURGE = Script(
    "members",
    "",
    """
-- The members of the servers in ARGV are there no more.
local dead = {}
for _, server in ipairs(ARGV) do dead[server] = true end
local all = redis.call('HGETALL', members)
for at = 1, #all, 2 do
  if dead[all[at + 1]:match('(%S+)%.%d+$')] then redis.call('HDEL', members, all[at]) end
end
""",
)

SCRIPTS = (ENTER, LEAVE, POST, RENEW, FORGET, BEAT, PURGE)
