"""The node: containerd, kubelet, kube-proxy, network policies and volumes, with the configuration files they read."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import prerequisites
from .control_plane import ApiProbe, ControlPlane
from .errors import BedError
from .layout import Layout
from .namespaces import NODE_IP, POD_CIDR, Namespaces
from .processes import Component
from .volumes import VOLUME_SCRIPTS, helper_pod

NODE_NAME = "node1"
DNS_IP = "10.96.0.10"
PAUSE_IMAGE = "chatflow.test/pause:bed"
POLICY_QUEUE = 100
"""kube-network-policies' own default."""


@dataclass(frozen=True, slots=True)
class NodePrograms:
    """The built folders that a node uses."""

    kubernetes: Path
    containerd: Path
    cni: Path
    local_path: Path
    network_policies: Path


class Node:
    """The processes of the one node, all inside the bed's namespaces."""

    def __init__(
        self, layout: Layout, plane: ControlPlane, programs: NodePrograms, environment: dict[str, str]
    ) -> None:
        self._layout, self._plane, self._programs, self._environment = layout, plane, programs, environment
        self._configuration = layout.state / "node"

    def containerd(self) -> Component:
        """The container runtime; it needs no API server and starts first."""
        command = (str(self._programs.containerd / "containerd"), f"--config={self._write_containerd()}")
        return Component("containerd", command, self._environment, self._containerd_answers)

    def components(self, probe: ApiProbe) -> list[Component]:
        """What starts once the API server answers."""
        return [self._kubelet(probe), self._proxy(), self._policies(), self._volumes()]

    def import_image(self, archive: Path) -> None:
        """Give containerd the images of a docker or OCI archive."""
        self._ctr("images", "import", "--local", str(archive))

    def images(self) -> list[str]:
        """The names of the images that containerd holds, but for those by digest."""
        listed = self._ctr("images", "list", "--quiet")
        return [name for name in listed.split() if "@" not in name and not name.startswith("sha256:")]

    def _ctr(self, *arguments: str) -> str:
        command = [str(self._programs.containerd / "ctr"), *arguments]
        ran = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        if ran.returncode:
            raise BedError(f"`ctr {' '.join(arguments)}` ended with {ran.returncode}: {ran.stderr.strip()}")
        return ran.stdout

    def _containerd_answers(self) -> bool:
        version = [str(self._programs.containerd / "ctr"), "version"]
        return subprocess.run(version, env=self._environment, capture_output=True).returncode == 0

    def _kubelet(self, probe: ApiProbe) -> Component:
        serving = self._plane.authority.issue(
            "kubelet",
            user=f"system:node:{NODE_NAME}",
            groups=("system:nodes",),
            hosts=(NODE_IP, "127.0.0.1", NODE_NAME),
        )
        kubeconfig = self._plane.client("kubelet", f"system:node:{NODE_NAME}", ("system:nodes",))
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self._layout.cgroup,
            "containerRuntimeEndpoint": f"unix://{self._layout.containerd_socket}",
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "address": "0.0.0.0",  # noqa: S104 - inside the bed's own network namespace
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._plane.authority.root.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "clusterDNS": [DNS_IP],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "podLogsDir": str(self._layout.state / "pods"),
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            # Configuration mounted into pods changes within seconds: scenarios wait for that.
            "syncFrequency": "10s",
            "serializeImagePulls": False,
            "volumePluginDir": str(self._layout.state / "volume-plugins"),
        }
        command = (
            str(self._programs.kubernetes / "kubelet"),
            f"--config={self._write('kubelet.json', json.dumps(configuration, indent=2))}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_IP}",
            f"--root-dir={self._layout.state / 'kubelet'}",
            f"--cert-dir={self._layout.state / 'kubelet' / 'pki'}",
        )
        return Component("kubelet", command, self._environment, lambda: _is_node_ready(probe))

    def _proxy(self) -> Component:
        configuration = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": POD_CIDR,
            "clientConnection": {"kubeconfig": str(self._plane.client("proxy", "system:kube-proxy"))},
            # The machine's connection tracking table is not ours to size.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "bindAddress": NODE_IP,
            "nodePortAddresses": [f"{NODE_IP}/32"],
            "oomScoreAdj": 0,
        }
        path = self._write("proxy.json", json.dumps(configuration, indent=2))
        command = (
            str(self._programs.kubernetes / "kube-proxy"),
            f"--config={path}",
            f"--hostname-override={NODE_NAME}",
        )
        return Component("kube-proxy", command, self._environment, lambda: True)

    def _policies(self) -> Component:
        kubeconfig = self._plane.client("network-policies", "network-policies", ("system:masters",))
        command = (
            str(self._programs.network_policies / "kube-network-policies"),
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NODE_NAME}",
            f"--nfqueue-id={POLICY_QUEUE}",
            "--disable-nri",
            "--metrics-bind-address=127.0.0.1:9080",
        )
        return Component("network-policies", command, self._environment, lambda: True)

    def _volumes(self) -> Component:
        kubeconfig = self._plane.client("local-path", "local-path", ("system:masters",))
        paths = {
            "nodePathMap": [
                {"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(self._layout.state / "volumes")]}
            ]
        }
        command = (
            str(self._programs.local_path / "local-path-provisioner"),
            "start",
            f"--config={self._write('local-path.json', json.dumps(paths))}",
            f"--helper-pod-file={self._write('helper-pod.json', json.dumps(helper_pod()))}",
            f"--kubeconfig={kubeconfig}",
            "--service-account-name=default",
            "--namespace=kube-system",
            f"--configmap-name={VOLUME_SCRIPTS}",
        )
        return Component("local-path", command, self._environment, lambda: True)

    def _write(self, name: str, text: str) -> Path:
        self._configuration.mkdir(parents=True, exist_ok=True)
        path = self._configuration / name
        # kube-proxy ends itself when its file is written anew, even with the same content.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return path

    def _write_containerd(self) -> Path:
        network = {
            "cniVersion": "1.0.0",
            "name": "bed",
            "plugins": [
                {
                    # Every pod is routed, none bridged: so network policies see all traffic between pods.
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": "10.244.0.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self._layout.state / "cni-addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
            ],
        }
        configuration = CONTAINERD.format(
            state=self._layout.state,
            socket=self._layout.containerd_socket,
            pause=PAUSE_IMAGE,
            runc=prerequisites.find("runc"),
            cni=self._programs.cni,
            networks=self._configuration / "net.d",
        )
        (self._configuration / "net.d").mkdir(parents=True, exist_ok=True)
        (self._configuration / "net.d" / "10-bed.conflist").write_text(json.dumps(network, indent=2))
        return self._write("containerd.toml", configuration)


CONTAINERD = """\
version = 3
root = '{state}/containerd'
state = '/run/containerd'

[grpc]
  address = '{socket}'

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{pause}'

[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '{runc}'
  SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{cni}']
  conf_dir = '{networks}'

[plugins.'io.containerd.internal.v1.opt']
  path = '{state}/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"""


_QUEUE = f"--jump NFQUEUE --queue-num {POLICY_QUEUE} --queue-bypass"
_QUEUE_BY_IPTABLES = f"""
set -e
if nft add table inet probe && nft add chain inet probe c && nft add rule inet probe c queue num 1 2>/dev/null; then
  nft delete table inet probe
  exit 0
fi
nft delete table inet probe
iptables --table mangle --new-chain network-policies 2>/dev/null || iptables --table mangle --flush network-policies
iptables --table mangle --append network-policies --out-interface lo --jump RETURN
iptables --table mangle --append network-policies --match conntrack --ctstate ESTABLISHED,RELATED --jump RETURN
iptables --table mangle --append network-policies --match owner --uid-owner 0 --jump RETURN
iptables --table mangle --append network-policies --source {POD_CIDR} {_QUEUE}
iptables --table mangle --append network-policies --destination {POD_CIDR} {_QUEUE}
iptables --table mangle --check POSTROUTING --jump network-policies 2>/dev/null ||
  iptables --table mangle --append POSTROUTING --jump network-policies
"""


def queue_new_connections(namespaces: Namespaces) -> None:
    """Show new connections of pods to kube-network-policies where the kernel has no queue expression for nftables.

    Its own rules use that expression (CONFIG_NFT_QUEUE). The iptables target NFQUEUE feeds the same queue at the same
    place, before source NAT; without the program's filter, new connections of every pod pass through it.
    """
    namespaces.run("bash", "-c", _QUEUE_BY_IPTABLES)


def _is_node_ready(probe: ApiProbe) -> bool:
    try:
        with probe.open(f"/api/v1/nodes/{NODE_NAME}") as response:
            conditions = json.load(response)["status"].get("conditions", [])
    except (OSError, ValueError):
        return False
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
