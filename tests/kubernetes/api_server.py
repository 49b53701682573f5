"""What Snakemake asks of Kubernetes' API, with jobs that run here, each in an empty folder of its own."""

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class ApiServer(ThreadingHTTPServer):
    """Bound to the loopback; `kubeconfig` names it."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        super().__init__(("127.0.0.1", 0), _Request)
        self.folder, self.environment = folder, environment
        self.pods: dict[str, dict] = {}
        """by job: the specification of its pod"""
        self.status: dict[str, dict] = {}
        self.kubeconfig = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [
                {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
            ],
            "users": [{"name": "me", "user": {}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def begin(self, job: dict) -> None:
        """Run the container's command, with a log beside its folder."""
        name = job["metadata"]["name"]
        self.pods[name], self.status[name] = job["spec"]["template"]["spec"], {}
        threading.Thread(target=self._run, args=(name,), daemon=True).start()

    def _run(self, name: str) -> None:
        (container,) = self.pods[name]["containers"]
        folder = self.folder / name
        folder.mkdir()
        with (self.folder / f"{name}.log").open("wb") as log:
            done = subprocess.run(
                [*container["command"], *container["args"]],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        self.status[name] = {"failed" if done.returncode else "succeeded": 1}


class _Request(BaseHTTPRequestHandler):
    server: ApiServer

    def log_message(self, *args) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.split("?")[0].endswith("/jobs"):
            self.server.begin(body)
        self._answer(body, 201)

    def do_GET(self) -> None:
        job = re.search(r"/jobs/([^/]+)/status", self.path)
        status = self.server.status[job[1]] if job else None
        self._answer({"metadata": {"name": job[1]}, "status": status} if job else {"items": []})

    def do_DELETE(self) -> None:
        self._answer({})

    def _answer(self, body: dict, code: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
