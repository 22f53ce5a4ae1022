//! What Docker knows of a container: the answer of its API (`GET /containers/ID/json`), and the file that it keeps
//! (`DATAROOT/containers/ID/config.v2.json`), which tell what is used here alike.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Identity;
use crate::kubernetes::Pod;
use crate::oci::{is_image, is_name};

/// The project that containers of Docker are in.
pub(crate) const PROJECT: &str = "docker";

/// The label by which Compose marks the containers of a project, the Compose specification.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// A container as Docker describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Record {
    #[serde(alias = "ID")]
    id: String,
    name: String,
    /// The id of its image.
    #[serde(default)]
    image: String,
    /// How its layers are kept: `overlay2`.
    #[serde(default)]
    driver: String,
    config: Config,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    /// The image as it was asked for.
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Record {
    /// Parses either form; `None` where it is none.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Whether it is of that container.
    pub(crate) fn is_of(&self, id: &str) -> bool {
        self.id == id
    }

    /// The id of the image, and the way that its layers are kept in.
    pub(crate) fn image(&self) -> (&str, &str) {
        (&self.image, &self.driver)
    }

    /// Whether it says that it belongs to a Compose project.
    pub(crate) fn has_project(&self) -> bool {
        self.label(COMPOSE_PROJECT).is_some()
    }

    /// The pod that a kubelet runs this container for, through cri-dockerd.
    pub(crate) fn pod(&self) -> Option<Pod> {
        Pod::of_container_name(self.name())
    }

    /// What the container is called; `labels_of_image` are those that its image brought along, which do not make it one of a
    /// Compose project: otherwise who makes an image could choose the project.
    pub(crate) fn identity(&self, labels_of_image: &BTreeMap<String, String>) -> Option<Identity> {
        let name = Some(self.name()).filter(|name| is_name(name))?;
        let compose = self.label(COMPOSE_PROJECT).filter(|project| {
            is_name(project) && labels_of_image.get(COMPOSE_PROJECT).map(String::as_str) != Some(project)
        });
        Some(Identity {
            project: compose.map_or_else(|| PROJECT.to_owned(), |project| format!("{PROJECT}/{project}")),
            name: name.to_owned(),
            image: self.image_name(),
            is_sandbox: false,
        })
    }

    /// The image as it was asked for.
    pub(crate) fn image_name(&self) -> Option<String> {
        self.config.image.clone().filter(|image| is_image(image))
    }

    /// The name without the slash that stands before it.
    fn name(&self) -> &str {
        self.name.strip_prefix('/').unwrap_or(&self.name)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// The labels that an image brings along: the answer of `GET /images/ID/json`, and the image's own configuration in
/// Docker's data root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Image {
    #[serde(default, alias = "Config")]
    config: Option<ImageConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct ImageConfig {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl Image {
    /// Parses either form; `None` where it is none.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Its labels.
    pub(crate) fn labels(self) -> BTreeMap<String, String> {
        self.config.and_then(|config| config.labels).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "f58f5aef7fdd2e59f29738e4ab05ba84d7acd067e06f4ebc20f45df8170504fd";

    fn identity(record: &Record) -> String {
        let Identity { project, name, image, is_sandbox } = record.identity(&BTreeMap::new()).unwrap();
        format!("{project} {name} {} {is_sandbox}", image.unwrap_or_default())
    }

    #[test]
    fn a_file_and_an_answer_tell_the_same() {
        let file = format!(
            r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Pid":14844}},"ID":"{ID}","Config":{{"Hostname":"h",
            "Env":null,"Image":"bb:1","Labels":{{"com.docker.compose.project":"shop"}}}},"Image":"sha256:2155",
            "Name":"/web","Driver":"overlay2"}}"#
        );
        let answer = format!(
            r#"{{"Id":"{ID}","Image":"sha256:2155","Name":"/web","Driver":"overlay2","HostConfig":{{}},
            "Config":{{"Image":"bb:1","Labels":{{"com.docker.compose.project":"shop"}}}}}}"#
        );
        let (file, answer) =
            (Record::parse(file.as_bytes()).unwrap(), Record::parse(answer.as_bytes()).unwrap());
        assert_eq!(file, answer);
        assert!(file.is_of(ID) && !file.is_of("f58f"));
        assert_eq!(identity(&file), "docker/shop web bb:1 false");
    }

    #[test]
    fn a_container_without_labels() {
        let text = format!(r#"{{"Id":"{ID}","Name":"web","Config":{{"Image":"","Labels":null}}}}"#);
        let record = Record::parse(text.as_bytes()).unwrap();
        assert_eq!(identity(&record), "docker web  false");
        let nameless = text.replace("\"web\"", "\"/\"");
        assert_eq!(Record::parse(nameless.as_bytes()).unwrap().identity(&BTreeMap::new()), None);
    }

    #[test]
    fn an_image_chooses_no_project() {
        let text = format!(
            r#"{{"Id":"{ID}","Name":"/web","Config":{{"Labels":{{"com.docker.compose.project":"shop"}}}}}}"#
        );
        let record = Record::parse(text.as_bytes()).unwrap();
        let project =
            |image: &str| record.identity(&Image::parse(image.as_bytes()).unwrap().labels()).unwrap().project;
        // As the API and as the file write it.
        assert_eq!(project(r#"{"Config": {"Labels": {"com.docker.compose.project": "shop"}}}"#), "docker");
        assert_eq!(project(r#"{"config": {"Labels": {"com.docker.compose.project": "shop"}}}"#), "docker");
        assert_eq!(
            project(r#"{"config": {"Labels": {"com.docker.compose.project": "other"}}}"#),
            "docker/shop"
        );
        assert_eq!(project(r#"{"config": {"Labels": null}}"#), "docker/shop");
        assert_eq!(project("{}"), "docker/shop");
    }

    #[test]
    fn a_container_of_a_kubelet() {
        let text = format!(r#"{{"Id":"{ID}","Name":"/k8s_nginx_web-0_shop_1-2_0","Config":{{}}}}"#);
        let pod = Record::parse(text.as_bytes()).unwrap().pod().unwrap();
        assert_eq!(pod.identity(None).name, "web-0/nginx");
    }

    #[test]
    fn what_is_no_record() {
        for bad in [&b""[..], b"{}", b"[]", b"{\"Id\":1}", b"{\"Id\":\"a\",\"Name\":\"b\"}", b"\xff"] {
            assert_eq!(Record::parse(bad), None);
        }
        assert_eq!(Image::parse(b"[1]"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), name in ".{0,20}", project in ".{0,20}") {
            let _ = Record::parse(&bytes);
            let _ = Image::parse(&bytes);
            let value = serde_json::json!({
                "ID": ID, "Name": name, "Config": {"Labels": {"com.docker.compose.project": project}},
            });
            let record = Record::parse(value.to_string().as_bytes()).unwrap();
            let _ = record.pod();
            if let Some(identity) = record.identity(&BTreeMap::new()) {
                prop_assert!(identity.project == PROJECT || identity.project.starts_with("docker/"));
                prop_assert!(!identity.name.is_empty());
            }
        }
    }
}
