# frame1 · la cabecera de trama
#
# Después del prefacio, una conexión HTTP/2 se compone de tramas y de nada más.
# Todas empiezan con los mismos nueve octetos (RFC 9113 §4.1):
#
#     octeto   0  1  2 |  3   |   4   |  5  6  7  8
#             longitud | tipo | flags |  identificador de flujo
#
# La longitud dice cuántos octetos vienen después; estos nueve no se cuentan.
# Los números son big-endian: el primer octeto es el que más pesa. El primer bit
# del octeto 5 está reservado: ponga lo que ponga el emisor, el receptor lo
# ignora, así que quedan 31 bits para el identificador de flujo.
#
#     00 00 04  08  00  00 00 00 03    siguen 4 octetos, tipo 8 (WINDOW_UPDATE),
#                                      sin flags, flujo 3
#     00 01 02  00  01  00 00 00 05    siguen 258 octetos (1 × 256 + 2), tipo 0
#                                      (DATA), flags 1 (END_STREAM), flujo 5
#
# En Python, header[3] es un octeto, ya como número; header[0:3] son tres
# octetos, que int.from_bytes(header[0:3], "big") convierte en un solo número.

from typing import NamedTuple


class FrameHeader(NamedTuple):
    length: int
    type: int
    flags: int
    stream_id: int


def read_frame_header(header: bytes) -> FrameHeader:
    # TODO: lee los cuatro números en los nueve octetos. La última línea no se toca.
    length = int.from_bytes(header[:3], "big")
    type_code = header[3]
    flags = header[4]
    stream_id = int.from_bytes(header[5:9], "big") & 0x7fffffff
    return FrameHeader(length, type_code, flags, stream_id)


if __name__ == "__main__":
    # Ejecuta este archivo para probarlo. Está bien cuando escribe
    #     FrameHeader(length=258, type=0, flags=1, stream_id=5)
    print(read_frame_header(bytes.fromhex("00 01 02 00 01 00 00 00 05")))

# Quien sabe leer estos nueve octetos puede leer cualquier conexión HTTP/2, trama a trama.
