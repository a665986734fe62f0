# [note] Shown after passing, in one language (see exercises/course.py).
from typing import NamedTuple


class FrameHeader(NamedTuple):
    length: int
    type: int
    flags: int
    stream_id: int


def read_frame_header(header: bytes) -> FrameHeader:
    # [en] 24 bits, the first octet weighing most. Only what follows is counted:
    # [en] from it a receiver knows where the next frame header begins.
    # [es] 24 bits; el primer octeto es el que más pesa. Solo cuenta lo que
    # [es] sigue: así sabe el receptor dónde empieza la próxima cabecera.
    length = int.from_bytes(header[0:3], "big")
    # [en] One octet of bytes is a number already.
    # [es] Un octeto de bytes ya es un número.
    type_code = header[3]
    flags = header[4]
    # [en] 32 bits, of which the highest is cleared. A receiver ignores the
    # [en] reserved bit, whose meaning is undefined; so it can be given one some
    # [en] day without breaking the programs of today.
    # [es] 32 bits, con el más alto puesto a 0. El receptor ignora el bit
    # [es] reservado, que no tiene significado definido; así se le podrá dar
    # [es] uno algún día sin estropear los programas de hoy.
    stream_id = int.from_bytes(header[5:9], "big") & 0x7FFF_FFFF
    return FrameHeader(length, type_code, flags, stream_id)
