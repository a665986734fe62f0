# [note] What students start from, in both languages (see exercises/course.py). They edit their own copy of it, in
# [note] exercises/work; this one stays as it is.
# [en] frame1 · the frame header
# [es] frame1 · la cabecera de trama
#
# [en] Behind the connection preface, an HTTP/2 connection is made of frames and of
# [en] nothing else. Each one begins with the same nine octets (RFC 9113 §4.1):
# [es] Después del prefacio, una conexión HTTP/2 se compone de tramas y de nada más.
# [es] Todas empiezan con los mismos nueve octetos (RFC 9113 §4.1):
#
# [en]     octet    0  1  2 |  3   |   4   |  5  6  7  8
# [en]              length  | type | flags |  stream identifier
# [es]     octeto   0  1  2 |  3   |   4   |  5  6  7  8
# [es]             longitud | tipo | flags |  identificador de stream
#
# [en] The length says how many octets follow; these nine are not counted. Numbers
# [en] are big-endian: the first octet weighs most. The first bit of octet 5 is
# [en] reserved: whatever a sender puts there, a receiver ignores it, so that 31
# [en] bits are left for the stream identifier.
# [es] La longitud dice cuántos octetos vienen después; estos nueve no se cuentan.
# [es] Los números son big-endian: el primer octeto es el que más pesa. El primer bit
# [es] del octeto 5 está reservado: ponga lo que ponga el emisor, el receptor lo
# [es] ignora, así que quedan 31 bits para el identificador de stream.
#
# [en]     00 00 04  08  00  00 00 00 03    4 octets follow, type 8 (WINDOW_UPDATE),
# [en]                                      no flags, stream 3
# [en]     00 01 02  00  01  00 00 00 05    258 octets follow (1 × 256 + 2), type 0
# [en]                                      (DATA), flags 1 (END_STREAM), stream 5
# [es]     00 00 04  08  00  00 00 00 03    siguen 4 octetos, tipo 8 (WINDOW_UPDATE),
# [es]                                      sin flags, stream 3
# [es]     00 01 02  00  01  00 00 00 05    siguen 258 octetos (1 × 256 + 2), tipo 0
# [es]                                      (DATA), flags 1 (END_STREAM), stream 5
#
# [en] In Python header[3] is one octet, as a number; header[0:3] is three octets,
# [en] which int.from_bytes(header[0:3], "big") makes into one number.
# [es] En Python, header[3] es un octeto, ya como número; header[0:3] son tres
# [es] octetos, que int.from_bytes(header[0:3], "big") convierte en un solo número.

from typing import NamedTuple


class FrameHeader(NamedTuple):
    length: int
    type: int
    flags: int
    stream_id: int


def read_frame_header(header: bytes) -> FrameHeader:
    # [en] TODO: read the four numbers. Leave the last line as it is.
    # [es] TODO: lee los cuatro números. La última línea no se toca.
    length = 0
    type_code = 0
    flags = 0
    stream_id = 0
    return FrameHeader(length, type_code, flags, stream_id)


if __name__ == "__main__":
    # [en] Run this file to try it. It is right when it prints
    # [es] Ejecuta este archivo para probarlo. Está bien cuando escribe
    #     FrameHeader(length=258, type=0, flags=1, stream_id=5)
    print(read_frame_header(bytes.fromhex("00 01 02 00 01 00 00 00 05")))

# [en] Whoever reads these nine octets can read any HTTP/2 connection, frame by
# [en] frame.
# [es] Quien sabe leer estos nueve octetos puede leer cualquier conexión HTTP/2,
# [es] trama a trama.
