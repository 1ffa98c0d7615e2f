"""Serves one model with llama.cpp's HTTP server: serve.py MODEL ADDRESS_FILE [TEMPLATE_FILE]

Writes the base URL to ADDRESS_FILE once it answers, and ends when its standard input does. It gets 4 GiB of memory:
for some schemas it takes all that there is.
"""

import resource
import sys
from pathlib import Path

import xllamacpp


MOST_MEMORY = 4 * 1024**3


def main(model, address_file, template=None):
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.port = 0
    params.n_parallel = 2
    params.n_ctx = 4096
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.endpoint_slots = True
    params.ui = False
    if template:
        params.chat_template = Path(template).read_text()
    server = xllamacpp.Server(params)
    Path(address_file).write_text(f"{server.listening_address}/v1")
    sys.stdin.read()


main(*sys.argv[1:])
