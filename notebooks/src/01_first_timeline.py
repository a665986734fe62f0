# %% [markdown] lang="en"
# # Your first timeline
#
# Two people chat in a room, each with a program of their own. While they do, a sniffer on the loopback interface keeps
# every TCP packet. You read that recording, list what is in it, and draw it.
#
# Run the cells from the top, one by one, with Shift+Enter. Change nothing yet: the last section says which line you
# change, and it is a single one.

# %% [markdown] lang="es"
# # Tu primera línea de tiempo
#
# Dos personas conversan en una sala, cada una con su propio programa. Mientras tanto, un sniffer en la interfaz de
# loopback guarda todos los paquetes TCP. Lees esa grabación, haces la lista de lo que contiene y la dibujas.
#
# Ejecuta las celdas desde arriba, una por una, con Mayús+Intro. Todavía no cambies nada: la última sección dice qué
# línea cambias, y es una sola.

# %%
import capture
from capture.views.table import RecordTable
from lab.notebooks import speak

# %% lang="en"
speak("en")

# %% lang="es"
speak("es")

# %% [markdown] lang="en"
# ## The recording

# %% [markdown] lang="es"
# ## La grabación

# %%
FILE = "../data/first_chat.pcap"

seen = capture.read(FILE)

# %% [markdown] lang="en"
# ## Connections
#
# A TCP connection is two addresses, each with a port. Every person's program opened one to the server, whose port is
# the same in both.

# %% [markdown] lang="es"
# ## Conexiones
#
# Una conexión TCP son dos direcciones, cada una con su puerto. El programa de cada persona abrió una hacia el servidor,
# cuyo puerto es el mismo en las dos.

# %%
for connection in seen.connections:
    print(connection.number, connection.client, "⇄", connection.server)

# %% [markdown] lang="en"
# ## Streams
#
# Each call of a gRPC method is an HTTP/2 stream with a number of its own; a client's numbers are odd and grow (RFC 9113
# §5.1.1). Join asks once and is answered once, History asks once and gets what the room remembers, Chat stays open in
# both directions until the person leaves. *Sent* and *received* are messages and octets, as the client sees it.

# %% [markdown] lang="es"
# ## Streams
#
# Cada llamada a un método de gRPC es un stream de HTTP/2, un flujo con su propio número; los del cliente son impares y
# van en aumento (RFC 9113 §5.1.1). Join pregunta una vez y recibe una respuesta; History pregunta una vez y recibe lo
# que la sala recuerda; Chat queda abierto en los dos sentidos hasta que la persona se va. Lo *enviado* y lo *recibido*
# son mensajes y octetos, vistos desde el cliente.

# %%
print(RecordTable("calls", columns=110).feed(seen.calls))

# %% [markdown] lang="en"
# ## Frames
#
# On the wire a stream is made of frames. How many of each type?

# %% [markdown] lang="es"
# ## Tramas
#
# En el cable, un stream se compone de tramas. ¿Cuántas hay de cada tipo?

# %%
types = [frame.type for frame in seen.frames]
for name in sorted(set(types)):
    print(f"{types.count(name):5}  {name}")

# %% [markdown] lang="en"
# Here they all are, connection by connection: milliseconds since the connection's first frame, the direction (`→` is
# from the client), the stream, the type with its flags, how many octets follow the frame header, and what they say.

# %% [markdown] lang="es"
# Aquí están todas, conexión por conexión: los milisegundos desde la primera trama de la conexión, el sentido (`→` es
# desde el cliente), el stream, el tipo con sus flags, cuántos octetos siguen a la cabecera de trama y qué dicen.

# %%
print(seen.table(columns=110))

# %% [markdown] lang="en"
# ## Messages
#
# DATA frames carry gRPC's messages, and these are read with the kit's `chat.proto`. Look for "Hola": it goes to the
# server once and comes back to everybody who is in the room; who comes later gets it from History.

# %% [markdown] lang="es"
# ## Mensajes
#
# Las tramas DATA llevan los mensajes de gRPC, que aquí se leen con el `chat.proto` del kit. Busca «Hola»: va una vez al
# servidor y vuelve a todas las personas que están en la sala; quien llega más tarde la recibe de History.

# %%
print(RecordTable("messages", columns=110).feed(seen.messages))

# %% [markdown] lang="en"
# ## Frames are not packets
#
# This recording was sniffed, so its packets are those of the network. First the number of frames, then the number of
# packets that completed at least one: a packet often carries several frames.

# %% [markdown] lang="es"
# ## Las tramas no son paquetes
#
# Esta grabación es de un sniffer, así que sus paquetes son los de la red. Primero, el número de tramas; después, el de
# paquetes que completaron alguna: a menudo un paquete lleva varias tramas.

# %%
print(len(seen.frames), len({frame.packet for frame in seen.frames}))

# %% [markdown] lang="en"
# ## The timeline
#
# Each stream has a lane, and each frame a mark: its shape and colour say the type, above the line it comes from the
# client, below from the server. Chat traffic is bursts, with long silences between them. So the frames stand side by
# side in their order, and each silence is a grey band with its true length written on it.

# %% [markdown] lang="es"
# ## La línea de tiempo
#
# Cada stream tiene un carril, y cada trama, una marca: la forma y el color dicen el tipo; encima de la línea viene del
# cliente, debajo, del servidor. El tráfico de un chat son ráfagas con largos silencios en medio. Por eso las tramas
# están una al lado de otra, en su orden, y cada silencio es una banda gris que lleva escrita su duración verdadera.

# %%
picture = seen.timeline()
picture

# %% [markdown] lang="en"
# The same facts as text:

# %% [markdown] lang="es"
# Los mismos datos como texto:

# %%
print(picture.facts)

# %% [markdown] lang="en"
# ## Your own capture
#
# `python3 -m lab demo`, in the folder of the kit, records a chat on your computer. Then go back to the line
#
#     FILE = "../data/first_chat.pcap"
#
# change it to
#
#     FILE = "../../demo/demo.pcapng"
#
# and choose *Run > Run All Cells*. Leave every other line as it is.
#
# That file comes from a tap, which sees octets and not packets: octets, order and times are true, the TCP/IP around
# them is synthesised. So in your own capture the number of packets says nothing about a network.

# %% [markdown] lang="es"
# ## Tu propia captura
#
# `python3 -m lab demo`, en la carpeta del kit, graba un chat en tu ordenador. Después vuelve a la línea
#
#     FILE = "../data/first_chat.pcap"
#
# cámbiala por
#
#     FILE = "../../demo/demo.pcapng"
#
# y elige *Run > Run All Cells*. Deja las demás líneas como están.
#
# Ese archivo viene de un tap, que ve octetos y no paquetes: los octetos, el orden y los tiempos son verdaderos; el
# TCP/IP que los rodea es sintetizado. Por eso, en tu propia captura el número de paquetes no dice nada de una red.
