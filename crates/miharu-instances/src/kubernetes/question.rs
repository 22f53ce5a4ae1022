//! Who a container of a pod is: asked at the socket of its runtime, else read where that notes it.

use std::path::PathBuf;

use super::cri;
use super::pod::{self, PREFIX, Pod};
use crate::Identity;
use crate::docker::question::Asked;
use crate::grpc::Connection;
use crate::oci::names::{Question, Unlearned};
use crate::oci::sockets::Sockets;
use crate::shim;

/// A container of containerd's CRI plugin or of CRI-O.
#[derive(Debug)]
pub(super) struct OfCri {
    /// Its id.
    pub(super) id: String,
    /// Where its runtime is asked.
    pub(super) socket: Option<PathBuf>,
    /// Where its bundle may be, as this process sees it.
    pub(super) bundles: Vec<PathBuf>,
    /// The name that CRI-O gave it, made of parts.
    pub(super) name: Option<String>,
}

impl Question for OfCri {
    fn ask(&mut self, sockets: &mut Sockets) -> Result<Identity, Unlearned> {
        let id = self.id.as_str();
        let answer = self.socket.as_ref().map(|socket| {
            sockets.ask(socket, |stream| async { cri::pod(Connection::over(stream).await?, id).await })
        });
        let annotations = shim::config(&self.bundles).map(|config| config.annotations).unwrap_or_default();
        // CRI-O notes the annotations of whoever made the pod among its own; the name comes from CRI-O alone.
        let noted = || {
            let of_name = self.name.as_deref().and_then(Pod::of_container_name);
            of_name.or_else(|| Pod::of_annotations(&annotations))
        };
        // A kubelet asks for images by digest, and the runtime may know no more than that.
        let image = || pod::image(&annotations);
        match answer {
            Some(Ok((pod, told))) => Ok(pod.identity(told.or_else(image))),
            Some(Err(unanswered)) => match noted() {
                Some(pod) => Ok(pod.identity(image())),
                None => Err(Unlearned(format!("{unanswered}, and nothing is noted in its bundle"))),
            },
            None => match noted() {
                Some(pod) => Ok(pod.identity(image())),
                None => Err(Unlearned("nothing is noted in its bundle".to_owned())),
            },
        }
    }

    fn project(&self) -> String {
        PREFIX.to_owned()
    }
}

/// A container that cri-dockerd runs in Docker.
#[derive(Debug)]
pub(super) struct OfDocker(pub(super) Asked);

impl Question for OfDocker {
    fn ask(&mut self, sockets: &mut Sockets) -> Result<Identity, Unlearned> {
        let record = self.0.record(sockets)?;
        let unknown = || Unlearned("Docker knows it under a name that no kubelet gives".to_owned());
        Ok(record.pod().ok_or_else(unknown)?.identity(record.image_name()))
    }

    fn project(&self) -> String {
        PREFIX.to_owned()
    }
}
