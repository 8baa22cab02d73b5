"""The proxies: their configurations, and how they are started.

Each has one configuration for all rows, tuned as its manual advises, with the same limits for all: 3 attempts,
response timeout 3 s, health checks of /health every second (nginx has none), at most 40 requests at
a time for all backends together (8 for each of five), and no request with POST sent twice. Each has one thread that serves.
"""

import json
import os
import subprocess
import sys

from e2e.servers import nginx, tool
from e2e.world import Failed, children, memory_kib

# At most this many requests at a time for all backends together: 5 times what 400 requests per second need. Each
# backend gets an equal part of it.
PLACES = 40

HAPROXY = """
global
    maxconn 8000
    nbthread 1
    stats socket {directory}/haproxy.sock

defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout http-keep-alive 60s
    timeout server 3s
    timeout queue 500ms
    # The first attempt and two others, each at another server.
    retries 2
    option redispatch 1
    retry-on conn-failure empty-response response-timeout 500 502 503 504
    http-reuse safe

frontend clients
    bind {listen}
    default_backend web

backend web
    balance {algorithm}
    http-request disable-l7-retry if METH_POST
    option httpchk GET /health
    default-server check inter 1s fall 2 rise 2 observe layer7 error-limit 5 on-error mark-down slowstart 10s maxconn {places}
{servers}
"""

NGINX = """
    keepalive_timeout 60s;
    keepalive_requests 1000000;
    upstream web {{
        zone web 256k;
        {algorithm}
        {servers}
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 1s;
            proxy_read_timeout 3s;
            proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
            proxy_next_upstream_tries 3;
        }}
    }}
"""

WEIR = """
listeners: ["{listen}"]
admin: {{address: "{admin}"}}
threads: 1
pools:
  - name: web
    algorithm: {algorithm}
    backends:
{backends}
    health_check: {{type: http, path: /health, interval: 1s, timeout: 500ms}}
    retry: {{attempts: 3, on: [connect, reset, timeout, 500, 502, 503, 504]}}
    timeouts: {{connect: 1s, response: 3s}}
{pool}
{top}
"""

# What the measured configuration has beside the above, if this build of Weir knows it: the place of the
# text, and the text. A build that does not know one of them is measured without it.
WEIR_MORE = {
    "max_requests": ("backend", "max_requests: {places}"),
    "slow_start": ("pool", "    slow_start: 10s"),
    "queue": ("pool", "    queue: {{length: 40, timeout: 5ms}}"),
}


def share(backends):
    """The places of one backend."""
    return PLACES // len(backends)


def envoy_config(listen, admin, backends, algorithm):
    """Envoy reads JSON as well as YAML."""

    def address(text):
        host, port = text.split(":")
        return {"socket_address": {"address": host, "port_value": int(port)}}

    def route(match, retry_on):
        policy = {
            "retry_on": retry_on,
            "num_retries": 2,
            "per_try_timeout": "3s",
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 5,
        }
        return {"match": match, "route": {"cluster": "web", "timeout": "10s", "retry_policy": policy}}

    is_post = {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "POST"}}]}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        # A POST is sent again only if no backend has received it.
                        route(is_post, "connect-failure,refused-stream,reset-before-request"),
                        route({"prefix": "/"}, "5xx,reset,connect-failure,refused-stream"),
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    cluster = {
        "name": "web",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": algorithm,
        "load_assignment": {
            "cluster_name": "web",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(one)}} for one in backends]}],
        },
        "health_checks": [
            {
                "timeout": "0.5s",
                "interval": "1s",
                # Else the second check comes a minute after the first, which is before any request.
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 2,
                "http_health_check": {"path": "/health"},
            }
        ],
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            # With 10 s a rolling restart ejects hosts faster than they return.
            "base_ejection_time": "3s",
            # Three of five, one of two.
            "max_ejection_percent": 60,
            "success_rate_minimum_hosts": 3,
            "success_rate_request_volume": 20,
            # A health check that passes does not end an ejection.
            "successful_active_health_check_uneject_host": False,
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1000,
                    "max_pending_requests": 40,
                    "max_requests": PLACES,
                    "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 10},
                }
            ]
        },
        "common_lb_config": {
            # Requests never go to hosts that are known to be dead.
            "healthy_panic_threshold": {"value": 0.0},
            # A change of health is used at once.
            "update_merge_window": "0s",
        },
    }
    if algorithm == "LEAST_REQUEST":
        # The best of four at random, instead of two: nearly the best of all. With the best of all, a retry would pick
        # the host again that has just refused it. With slow start Envoy would balance by weights instead.
        cluster["least_request_lb_config"] = {"choice_count": 4}
    else:
        cluster["round_robin_lb_config"] = {"slow_start_config": {"slow_start_window": "10s"}}
    listener = {
        "name": "clients",
        "address": address(listen),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


class Proxy:
    """A proxy that runs, its address and its processes."""

    def __init__(self, world, process, address):
        self.world, self.process, self.address = world, process, address

    def peak_mb(self):
        return memory_kib(children(self.process.pid), "VmHWM") / 1024

    def end(self):
        self.world.end(self.process)


def start_haproxy(world, backends, listen, options):
    servers = "\n".join(f"    server s{n} {one}" for n, one in enumerate(backends))
    text = HAPROXY.format(
        directory=world.directory, listen=listen, algorithm=options["algorithm"], servers=servers, places=share(backends)
    )
    command = [tool("haproxy"), "-db", "-f", world.write("haproxy.cfg", text)]
    return world.run("haproxy", command), listen, "/r/-1"


def start_nginx(world, backends, listen, options):
    servers = "\n        ".join(f"server {one} max_conns={share(backends)} max_fails=3 fail_timeout=2s;" for one in backends)
    text = NGINX.format(listen=listen, servers=servers, algorithm=options["algorithm"])
    return nginx(world, "proxy", text), listen, "/r/-1"


def envoy_binary():
    beside = os.path.join(os.path.dirname(sys.executable), "envoy")
    return beside if os.access(beside, os.X_OK) else tool("envoy")


def start_envoy(world, backends, listen, options):
    admin = f"{listen.split(':')[0]}:9901"
    config = envoy_config(listen, admin, backends, options["algorithm"])
    path = world.write("envoy.json", json.dumps(config, indent=2))
    command = [envoy_binary(), "-c", path, "--concurrency", "1", "--log-level", "warn", "--disable-hot-restart"]
    return world.run("envoy", command), admin, "/ready"


def weir_text(listen, backends, algorithm, more):
    """The configuration of Weir, with those of WEIR_MORE that are named."""
    host = listen.split(":")[0]
    texts = [(WEIR_MORE[name][0], WEIR_MORE[name][1].format(places=share(backends))) for name in more]
    of_backend = "".join(f", {text}" for place, text in texts if place == "backend")
    return WEIR.format(
        listen=listen,
        admin=f"{host}:9090",
        algorithm=algorithm,
        backends="\n".join(f'      - {{url: "http://{one}"{of_backend}}}' for one in backends),
        pool="\n".join(text for place, text in texts if place == "pool"),
        top="\n".join(text for place, text in texts if place == "top"),
    )


def weir_knows(world, binary):
    """Which of WEIR_MORE this build accepts, each tried alone."""
    known = []
    for name in WEIR_MORE:
        text = weir_text("127.0.0.1:8080", ["127.0.0.1:3000"], "round_robin", [name])
        path = world.write("known.yaml", text)
        done = subprocess.run([binary, "check", "-c", path], capture_output=True, timeout=30, check=False)
        if done.returncode == 0:
            known.append(name)
    return known


def start_weir(world, backends, listen, options):
    text = weir_text(listen, backends, options["algorithm"], options["more"])
    environment = os.environ | {"TMPDIR": world.directory, "WEIR_CONTROL": world.path("weir.sock")}
    command = [options["binary"], "run", "-c", world.write("weir.yaml", text)]
    process = world.run("weir", command, stdout=subprocess.DEVNULL, env=environment)
    return process, f"{listen.split(':')[0]}:9090", "/readyz"


STARTS = {"haproxy": start_haproxy, "envoy": start_envoy, "nginx": start_nginx, "weir": start_weir}
ALGORITHMS = {
    "haproxy": {"lc": "leastconn", "rr": "roundrobin"},
    "envoy": {"lc": "LEAST_REQUEST", "rr": "ROUND_ROBIN"},
    "nginx": {"lc": "least_conn;", "rr": ""},
    "weir": {"lc": "least_conn", "rr": "round_robin"},
}
# The columns of a run without --proxies. The others are measured on request.
USUAL = ["haproxy-lc", "envoy-lc", "nginx-lc", "weir-rr", "weir-lc"]


def columns(names, has_old):
    """The columns that are asked for: `weir` is both of Weir's, another bare name is its usual one."""
    wanted = []
    for name in names:
        if name in ("weir", "weir-old"):
            wanted += [f"{name}-rr", f"{name}-lc"]
        else:
            wanted.append(name if name.endswith(("-lc", "-rr")) else f"{name}-lc")
    if not names:
        wanted = USUAL + (["weir-old-rr", "weir-old-lc"] if has_old else [])
    for name in wanted:
        kind = name[:-3].removesuffix("-old")
        if kind not in STARTS or (kind != "weir" and "-old" in name):
            raise Failed(f"no such proxy: {name} (haproxy, envoy, nginx, weir, weir-old; with -rr or -lc)")
    return list(dict.fromkeys(wanted))


def start(world, column, backends, listen, weirs):
    """Starts the proxy of a column. `weirs`: for `weir` and `weir-old`, the binary and what it knows."""
    which, algorithm = column[:-3], column[-2:]
    kind = which.removesuffix("-old")
    options = {"algorithm": ALGORITHMS[kind][algorithm]}
    if kind == "weir":
        options["binary"], options["more"] = weirs[which]
    process, ready, path = STARTS[kind](world, backends, listen, options)
    world.until_serving(process, ready, path)
    # And a request goes through; backends count those with a number below 0 for nothing.
    world.until_serving(process, listen, "/r/-1")
    return Proxy(world, process, listen)


def versions(columns, weirs):
    """What is compared, for the head of the table."""
    commands = {"haproxy": ("haproxy", "-v"), "nginx": ("nginx", "-v"), "envoy": ("envoy", "--version")}
    found = {}
    for name in sorted(commands.keys() & {column[:-3] for column in columns}):
        program = envoy_binary() if name == "envoy" else tool(commands[name][0])
        # Envoy says its own path first.
        said = output(program, commands[name][1]).splitlines()[0].removeprefix(program).strip()
        found[name] = said.removeprefix("nginx version: ").split(" - ")[0]
    for name, (binary, more) in weirs.items():
        found[name] = f"{output(binary, '--version')}; keys: {', '.join(more) or 'none beside the defaults'}"
    return found


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip()
