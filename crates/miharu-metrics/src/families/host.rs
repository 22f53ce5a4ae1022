//! Producers of the families that speak of all instances together, or of the server.

use std::collections::BTreeMap;

use crate::Snapshot;
use crate::encode::Samples;
use crate::figures::InstanceFigures;
use crate::sample::Label;

pub(super) fn instances_running(instances: &[&InstanceFigures], out: &mut Samples<'_>) {
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for instance in instances {
        *counts.entry((instance.project.as_str(), instance.instance_type)).or_default() += 1;
    }
    for ((project, instance_type), count) in counts {
        out.labelled(&[Label::Text("project", project), Label::Text("type", instance_type.as_str())], count);
    }
}

pub(super) fn certificates(snapshot: &Snapshot, out: &mut Samples<'_>) {
    for end in &snapshot.server.certificates {
        out.labelled(&[Label::Text("certificate", end.certificate)], end.end_seconds);
    }
}

pub(super) fn api_requests_completed(snapshot: &Snapshot, out: &mut Samples<'_>) {
    for requests in &snapshot.server.api_requests {
        let results = [
            ("error_client", requests.error_client),
            ("error_server", requests.error_server),
            ("succeeded", requests.succeeded),
        ];
        for (result, count) in results {
            out.labelled(
                &[Label::Text("entity_type", requests.entity_type), Label::Text("result", result)],
                count,
            );
        }
    }
}

pub(super) fn api_requests_ongoing(snapshot: &Snapshot, out: &mut Samples<'_>) {
    for requests in &snapshot.server.api_requests {
        out.labelled(&[Label::Text("entity_type", requests.entity_type)], requests.ongoing);
    }
}
