//! Pods without a kubelet: containerd's own CRI plugin, told by its gRPC API what a kubelet would tell it.
//!
//! A pod has the host's network, which needs no plugin of CNI; its pause image is made here.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use http::uri::PathAndQuery;
use prost::Message;
use serde_json::json;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::containerd::Containerd;
use crate::oci::{self, Container};
use crate::scratch::{self, Entry, Note};
use crate::shell;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The image of all containers here, the pause container's, too.
const IMAGE: &str = "localhost/mh:1";

/// What ends a pod.
const STOP: &str = "/runtime.v1.RuntimeService/StopPodSandbox";
const REMOVE: &str = "/runtime.v1.RuntimeService/RemovePodSandbox";

/// The network namespace of the host, `NamespaceMode.NODE` of the CRI.
const NODE: i32 = 2;

/// A containerd with its CRI plugin; the pods and it are ended on drop.
#[derive(Debug)]
pub struct Cri {
    /// The containerd.
    pub containerd: Containerd,
    runtime: tokio::runtime::Runtime,
    pods: Mutex<Vec<String>>,
    /// Their cgroups, which go after the containerd, as that may have been unable to end them.
    cgroups: Mutex<Vec<Note>>,
}

/// A pod with one container.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What holds its namespaces; its name is the pod's.
    pub sandbox: Container,
    /// The container.
    pub container: Container,
}

impl Cri {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        let plugin = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{IMAGE}\"\n  disable_tcp_service = true\n  \
             restrict_oom_score_adj = true\n  disable_apparmor = true\n"
        );
        let containerd = Containerd::with("", &plugin)?;
        let archive = archive()?;
        containerd
            .ctr("k8s.io", &["image", "import", archive.to_str().context("a path that is no UTF-8")?])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { containerd, runtime, pods: Mutex::default(), cgroups: Mutex::default() })
    }

    /// Runs a pod in a namespace, with one container in it, where a kubelet would with cgroupfs.
    ///
    /// # Errors
    /// When containerd cannot.
    pub fn run(&self, namespace: &str, pod: &str, container: &str) -> Result<Pod> {
        let uid = scratch::unique("uid");
        let parent = format!("/kubepods/burstable/pod{uid}");
        let mut cgroups = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        for path in [parent.as_str(), "/kubepods/burstable"] {
            cgroups.push(Entry::Cgroup(path).note()?);
        }
        drop(cgroups);
        let logs = scratch::dir("logs")?.to_string_lossy().into_owned();
        let host_network =
            Some(SecurityContext { namespace_options: Some(NamespaceOption { network: NODE }) });
        let sandbox_config = SandboxConfig {
            metadata: Some(SandboxMetadata {
                name: pod.to_owned(),
                uid,
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            log_directory: logs,
            linux: Some(LinuxSandbox { cgroup_parent: parent, security_context: host_network }),
        };
        let sandbox: Id = self.call(
            "/runtime.v1.RuntimeService/RunPodSandbox",
            RunSandbox { config: Some(sandbox_config.clone()) },
        )?;
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox.id.clone());
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: container.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned() }),
            log_path: "log".to_owned(),
            linux: Some(LinuxContainer {
                security_context: Some(ContainerSecurityContext {
                    namespace_options: Some(NamespaceOption { network: NODE }),
                }),
            }),
        };
        let create = CreateContainer {
            sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let created: Id = self.call("/runtime.v1.RuntimeService/CreateContainer", create)?;
        let _: Nothing = self.call("/runtime.v1.RuntimeService/StartContainer", created.clone())?;
        Ok(Pod {
            sandbox: self.container(pod, sandbox.id)?,
            container: self.container(container, created.id)?,
        })
    }

    fn container(&self, name: &str, id: String) -> Result<Container> {
        let pid = self.containerd.pid("k8s.io", &id)?;
        Ok(Container { name: name.to_owned(), id, pid })
    }

    fn call<Q, A>(&self, method: &'static str, message: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let socket = self.containerd.home.join("containerd.sock");
        let call = async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
            let mut grpc: Grpc<Channel> = Grpc::new(endpoint.connect().await?);
            grpc.ready().await?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let answer =
                grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(method), codec).await?;
            anyhow::Ok(answer.into_inner())
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, call).await });
        answer.with_context(|| format!("{method} takes too long"))?.context(method)
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        let pods = std::mem::take(&mut *self.pods.lock().unwrap_or_else(PoisonError::into_inner));
        // A daemon that was killed answers nothing; its shims are ended with its folder.
        if self.containerd.daemon().is_err() {
            return;
        }
        for id in pods {
            let id = Id { id };
            // Just after its start the plugin knows nothing yet.
            let _ = shell::wait_for("a pod's end", Duration::from_secs(10), || {
                self.call::<Id, Nothing>(STOP, id.clone()).ok()
            });
            let _: Result<Nothing> = self.call(REMOVE, id);
        }
    }
}

/// The image of all test containers as an archive that containerd imports.
fn archive() -> Result<std::path::PathBuf> {
    let dir = scratch::dir("archive")?;
    fs::copy(oci::image()?, dir.join("layer.tar"))?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Cmd": ["/sbin/init"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&dir.join("layer.tar"))?)]},
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(dir.join("manifest.json"), manifest.to_string())?;
    let tar = dir.join("image.tar");
    let files = ["manifest.json", "config.json", "layer.tar"];
    let to = tar.to_str().context("a path that is no UTF-8")?;
    let from = dir.to_str().context("a path that is no UTF-8")?;
    shell::run("tar", [&["-C", from, "-cf", to][..], &files[..]].concat())?;
    Ok(tar)
}

fn sha256(path: &Path) -> Result<String> {
    let sum = shell::run("sha256sum", [path])?;
    sum.split_whitespace().next().map(str::to_owned).context("no sum")
}

/// As Go calls it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

// What is used of k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// Messages with one field, an id: answers, and requests about a container or a sandbox.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<SandboxMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<SecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "2")]
    security_context: Option<ContainerSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerSecurityContext {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}
