"""gRPC's official interoperability tests, with PyPI's grpcio on the other side of the mesh.

    interop.py BINARY MESHCTL PROTO_FOLDER...

BINARY is the crate `interop`, the folders hold `grpc/testing/test.proto` and what it imports. First grpcio calls
`BINARY serve`, then `BINARY call` calls a server of grpcio: once in plaintext, once with mTLS on both sides by
certificates of `MESHCTL certs`. Prints a line for each case; the last line is the sum. The cases are those of grpc/grpc,
doc/interop-test-descriptions.md; names and sizes are the official ones.

The messages are made from the protos by grpcio-tools, without generated modules: those would lie in a package
`grpc.testing`, which is grpcio's own.
"""

import queue
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

SERVICE = "grpc.testing.TestService"
INITIAL = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
TRAILING = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
REQUESTS = [27182, 8, 1828, 45904]
RESPONSES = [31415, 9, 2653, 58979]
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
# What the certificates are made for; the mesh's side looks for the first.
SERVICES = ["interop", "grpcio"]
TRUST_DOMAIN = "interop.example"
# What a case may take, and how long a server may take to notice that a call was cancelled, in seconds.
CASE_TIMEOUT = 30
NOTICE_TIMEOUT = 10


def compile_protos(folders):
    """The message classes of `grpc.testing` by name."""
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder) / "descriptors.bin"
        well_known = str(Path(protoc.__file__).parent / "_proto")
        includes = [f"-I{folder}" for folder in [*folders, well_known]]
        arguments = ["protoc", *includes, "--include_imports", f"--descriptor_set_out={descriptors}"]
        if protoc.main([*arguments, "grpc/testing/test.proto"]) != 0:
            raise SystemExit("protoc refuses the protos")
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    messages = {}
    for name in ("empty", "messages"):
        for message in pool.FindFileByName(f"grpc/testing/{name}.proto").message_types_by_name.values():
            messages[message.name] = message_factory.GetMessageClass(message)
    service = pool.FindServiceByName(SERVICE)
    methods = {}
    for method in service.methods:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        types = [messages[side.name] for side in (method.input_type, method.output_type)]
        methods[method.name] = (kind, *types)
    return messages, methods


class Client:
    """grpcio calls; each method is a case."""

    def __init__(self, channel, messages, methods):
        self.messages = messages
        self.methods = {name: self.stub(channel, SERVICE, name, *method) for name, method in methods.items()}
        absent = methods["UnimplementedCall"]
        self.absent = self.stub(channel, "grpc.testing.UnimplementedService", "UnimplementedCall", *absent)

    @staticmethod
    def stub(channel, service, name, kind, request, response):
        make = getattr(channel, kind)
        return make(f"/{service}/{name}", request.SerializeToString, response.FromString)

    def message(self, name, **fields):
        return self.messages[name](**fields)

    def payload(self, size):
        return self.message("Payload", body=bytes(size))

    def duplex(self, size, response=None):
        asked = [] if response is None else [self.message("ResponseParameters", size=response)]
        payload = self.payload(size)
        return self.message("StreamingOutputCallRequest", response_parameters=asked, payload=payload)

    def large(self):
        return self.message("SimpleRequest", response_size=314159, payload=self.payload(271828))

    def status(self, request, text):
        status = self.message("EchoStatus", code=2, message=text)
        return self.message(request, response_status=status)

    def empty_unary(self):
        same(self.methods["EmptyCall"](self.message("Empty")), self.message("Empty"))

    def large_unary(self):
        same(self.methods["UnaryCall"](self.large()).payload.body, bytes(314159))

    def client_streaming(self):
        requests = [self.message("StreamingInputCallRequest", payload=self.payload(size)) for size in REQUESTS]
        same(self.methods["StreamingInputCall"](iter(requests)).aggregated_payload_size, 74922)

    def server_streaming(self):
        asked = [self.message("ResponseParameters", size=size) for size in RESPONSES]
        request = self.message("StreamingOutputCallRequest", response_parameters=asked)
        answers = list(self.methods["StreamingOutputCall"](request))
        same([answer.payload.body for answer in answers], [bytes(size) for size in RESPONSES])

    def ping_pong(self):
        requests = Requests()
        answers = self.methods["FullDuplexCall"](requests)
        for request, response in zip(REQUESTS, RESPONSES):
            requests.put(self.duplex(request, response))
            same(next(answers).payload.body, bytes(response))
        requests.close()
        same(list(answers), [])

    def empty_stream(self):
        same(list(self.methods["FullDuplexCall"](iter([]))), [])

    def status_code_and_message(self):
        text = "test status message"
        with Refusal(grpc.StatusCode.UNKNOWN, text):
            self.methods["UnaryCall"](self.status("SimpleRequest", text))
        with Refusal(grpc.StatusCode.UNKNOWN, text):
            list(self.methods["FullDuplexCall"](iter([self.status("StreamingOutputCallRequest", text)])))

    def special_status_message(self):
        with Refusal(grpc.StatusCode.UNKNOWN, SPECIAL):
            self.methods["UnaryCall"](self.status("SimpleRequest", SPECIAL))

    def custom_metadata(self):
        metadata = [INITIAL, TRAILING]
        _, call = self.methods["UnaryCall"].with_call(self.large(), metadata=metadata)
        self.echoed(call)
        request = self.duplex(271828, 314159)
        answers = self.methods["FullDuplexCall"](iter([request]), metadata=metadata)
        same([answer.payload.body for answer in answers], [bytes(314159)])
        self.echoed(answers)

    @staticmethod
    def echoed(call):
        for (key, value), found in ((INITIAL, call.initial_metadata()), (TRAILING, call.trailing_metadata())):
            same([entry.value for entry in found if entry.key == key], [value])

    def unimplemented_method(self):
        with Refusal(grpc.StatusCode.UNIMPLEMENTED):
            self.methods["UnimplementedCall"](self.message("Empty"))

    def unimplemented_service(self):
        with Refusal(grpc.StatusCode.UNIMPLEMENTED):
            self.absent(self.message("Empty"))

    def cancel_after_begin(self):
        requests = Requests()
        call = self.methods["StreamingInputCall"].future(requests)
        call.cancel()
        same(call.code(), grpc.StatusCode.CANCELLED)
        requests.close()

    def cancel_after_first_response(self):
        requests = Requests()
        answers = self.methods["FullDuplexCall"](requests)
        requests.put(self.duplex(REQUESTS[0], RESPONSES[0]))
        same(next(answers).payload.body, bytes(RESPONSES[0]))
        answers.cancel()
        with Refusal(grpc.StatusCode.CANCELLED):
            next(answers)
        requests.close()

    def timeout_on_sleeping_server(self):
        requests = Requests()
        requests.put(self.duplex(REQUESTS[0]))
        with Refusal(grpc.StatusCode.DEADLINE_EXCEEDED):
            next(self.methods["FullDuplexCall"](requests, timeout=0.001))
        requests.close()

    def refused(self):
        with Refusal(grpc.StatusCode.UNAVAILABLE):
            self.methods["EmptyCall"](self.message("Empty"))


CASES = [name for name in vars(Client) if "_" in name and not name.startswith("_")]


class Requests:
    """A stream of requests that the case goes on writing."""

    def __init__(self):
        self.queue = queue.Queue()

    def __iter__(self):
        return self

    def __next__(self):
        request = self.queue.get()
        if request is None:
            raise StopIteration
        return request

    def put(self, request):
        self.queue.put(request)

    def close(self):
        self.queue.put(None)


class Refusal:
    """A call inside has to fail with this status."""

    def __init__(self, code, text=None):
        self.code, self.text = code, text

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            raise AssertionError(f"the call succeeded instead of {self.code}")
        if not isinstance(error, grpc.RpcError):
            return False
        same(error.code(), self.code)
        if self.text is not None:
            same(error.details(), self.text)
        return True


class Certificates:
    """What `meshctl certs` has made, in a folder of its own."""

    def __init__(self, meshctl, folder):
        self.folder = Path(folder)
        services = [f"--service={service}" for service in SERVICES]
        made = [meshctl, "certs", "new", "--trust-domain", TRUST_DOMAIN, *services, "--out", folder]
        subprocess.run(made, stdout=subprocess.DEVNULL, check=True)

    def read(self, name):
        return (self.folder / name).read_bytes()

    def own(self):
        return self.read("grpcio/key.pem"), self.read("grpcio/certificate.pem")

    def options(self):
        return ["--certificates", str(self.folder)]

    def of_channel(self):
        key, certificate = self.own()
        return grpc.ssl_channel_credentials(self.read("bundle.pem"), key, certificate)

    def without_own(self):
        return grpc.ssl_channel_credentials(self.read("bundle.pem"))

    def of_server(self):
        return grpc.ssl_server_credentials([self.own()], self.read("bundle.pem"), require_client_auth=True)


class Server:
    """grpcio answers; remembers which calls their clients have cancelled."""

    def __init__(self, messages, methods, certificates):
        self.messages = messages
        self.cancelled = queue.Queue()
        handlers = {}
        for name, (kind, request, response) in methods.items():
            behaviour = getattr(self, name, None)
            if behaviour:
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                handlers[name] = make(self.observed(name, behaviour), request.FromString, response.SerializeToString)
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        if certificates:
            port = self.server.add_secure_port("127.0.0.1:0", certificates.of_server())
        else:
            port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self.server.start()

    def observed(self, name, behaviour):
        def called(requests, context):
            metadata = {entry.key: entry.value for entry in context.invocation_metadata()}
            if INITIAL[0] in metadata:
                context.send_initial_metadata([(INITIAL[0], metadata[INITIAL[0]])])
            if TRAILING[0] in metadata:
                context.set_trailing_metadata([(TRAILING[0], metadata[TRAILING[0]])])
            return behaviour(self.watched(name, requests), context)

        return called

    def watched(self, name, requests):
        """A stream of requests breaks off in the server when its client cancels the call."""
        if not hasattr(requests, "__next__"):
            return requests

        def watch():
            try:
                yield from requests
            except grpc.RpcError:
                self.cancelled.put(name)
                raise

        return watch()

    def wait_for_cancelled(self, expected):
        missing = set(expected)
        ends = time.monotonic() + NOTICE_TIMEOUT
        while missing:
            try:
                missing.discard(self.cancelled.get(timeout=max(0.0, ends - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"the server has not noticed that {sorted(missing)} were cancelled") from None

    def payload(self, size):
        return self.messages["Payload"](body=bytes(size))

    @staticmethod
    def echo(request, context):
        if request.HasField("response_status"):
            code = next(code for code in grpc.StatusCode if code.value[0] == request.response_status.code)
            context.abort(code, request.response_status.message)

    def answers(self, request, context):
        self.echo(request, context)
        for asked in request.response_parameters:
            time.sleep(asked.interval_us / 1e6)
            yield self.messages["StreamingOutputCallResponse"](payload=self.payload(asked.size))

    def EmptyCall(self, _request, _context):
        return self.messages["Empty"]()

    def UnaryCall(self, request, context):
        self.echo(request, context)
        return self.messages["SimpleResponse"](payload=self.payload(request.response_size))

    def StreamingOutputCall(self, request, context):
        yield from self.answers(request, context)

    def StreamingInputCall(self, requests, _context):
        size = sum(len(request.payload.body) for request in requests)
        return self.messages["StreamingInputCallResponse"](aggregated_payload_size=size)

    def FullDuplexCall(self, requests, context):
        for request in requests:
            yield from self.answers(request, context)


def same(found, expected):
    if found != expected:
        raise AssertionError(f"found {str(found)[:200]}, expected {str(expected)[:200]}")


def grpcio_calls(binary, messages, methods, certificates):
    """How many cases failed."""
    failed = 0
    what = f"grpcio calls the mesh, {name_of(certificates)}"

    def told(case, verdict):
        nonlocal failed
        failed += verdict != "ok"
        print(f"{what}: {case} {verdict}", flush=True)

    with subprocess.Popen([binary, "serve", *options(certificates)], stdout=subprocess.PIPE, text=True) as serving:
        try:
            address = serving.stdout.readline().strip()
            with channel(address, certificates and certificates.of_channel()) as trusted:
                client = Client(trusted, messages, methods)
                for case in CASES:
                    told(case, run(getattr(client, case)))
            if certificates:
                for case, credentials in {"no TLS": None, "no certificate": certificates.without_own()}.items():
                    with channel(address, credentials) as stranger:
                        told(f"refused with {case}:", run(Client(stranger, messages, methods).refused))
        finally:
            serving.terminate()
    if serving.returncode != 0:
        print(f"the mesh's server ended with {serving.returncode}")
        failed += 1
    return failed


def channel(address, credentials):
    return grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)


def name_of(certificates):
    return "mTLS" if certificates else "plaintext"


def options(certificates):
    return certificates.options() if certificates else []


def run(case):
    """The case in a thread of its own: what hangs is a failure too."""
    verdicts = queue.Queue()

    def attempt():
        try:
            case()
            verdicts.put("ok")
        except Exception as error:  # Whatever it is, it is this case's failure.
            verdicts.put(f"failed: {error!r}")

    threading.Thread(target=attempt, daemon=True).start()
    try:
        return verdicts.get(timeout=CASE_TIMEOUT)
    except queue.Empty:
        return f"failed: not done after {CASE_TIMEOUT} s"


def mesh_calls(binary, messages, methods, certificates):
    """How many cases failed."""
    server = Server(messages, methods, certificates)
    call = [binary, "call", server.address, *options(certificates)]
    ended = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
    lines = ended.stdout.splitlines()
    what = f"the mesh calls grpcio, {name_of(certificates)}"
    for line in lines:
        print(f"{what}: {line}", flush=True)
    same([line.split()[0] for line in lines], CASES)
    failed = sum(not line.endswith(" ok") for line in lines)
    try:
        server.wait_for_cancelled(["StreamingInputCall", "FullDuplexCall"])
    except AssertionError as error:
        print(f"{what}: {error}")
        failed += 1
    server.server.stop(grace=None)
    return failed + (ended.returncode != 0 and failed == 0)


def main():
    binary, meshctl, *folders = sys.argv[1:]
    messages, methods = compile_protos(folders)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for certificates in (None, Certificates(meshctl, folder)):
            failed += grpcio_calls(binary, messages, methods, certificates)
            failed += mesh_calls(binary, messages, methods, certificates)
    if failed:
        print(f"{failed} cases failed")
        return 1
    print(f"{len(CASES)} cases in both directions, in plaintext and with mTLS, grpcio {grpc.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
