//! Producers of the families that speak of the daemons of Incus and LXD.

use crate::Snapshot;
use crate::encode::Samples;
use crate::sample::{Label, Value};
use crate::server::{Limit, Resource, Runtime, StoragePool};

pub(super) fn resources(snapshot: &Snapshot, out: &mut Samples<'_>) {
    for runtime in &snapshot.server.runtimes {
        for project in &runtime.projects {
            for (resource, count) in &project.counts {
                let labels = [Label::Text("project", &project.name), Label::Text("resource", resource)];
                labelled(runtime, &labels, *count, out);
            }
        }
    }
}

pub(super) fn limits(snapshot: &Snapshot, out: &mut Samples<'_>) {
    each_resource(snapshot, out, |resource| {
        Some(match resource.limit {
            Limit::Unlimited => Value::from(-1.0),
            Limit::At(limit) => Value::from(limit),
        })
    });
}

pub(super) fn usage(snapshot: &Snapshot, out: &mut Samples<'_>) {
    each_resource(snapshot, out, |resource| resource.usage.map(Value::from));
}

fn each_resource(snapshot: &Snapshot, out: &mut Samples<'_>, figure: impl Fn(&Resource) -> Option<Value>) {
    for runtime in &snapshot.server.runtimes {
        for project in &runtime.projects {
            for (name, resource) in &project.resources {
                if let Some(value) = figure(resource) {
                    let labels = [Label::Text("project", &project.name), Label::Text("resource", name)];
                    labelled(runtime, &labels, value, out);
                }
            }
        }
    }
}

pub(super) fn pools(
    snapshot: &Snapshot,
    out: &mut Samples<'_>,
    figure: impl Fn(&StoragePool) -> Option<u64>,
) {
    for runtime in &snapshot.server.runtimes {
        for pool in &runtime.pools {
            if let Some(value) = figure(pool) {
                let labels = [Label::Text("driver", &pool.driver), Label::Text("pool", &pool.name)];
                labelled(runtime, &labels, value, out);
            }
        }
    }
}

pub(super) fn age(snapshot: &Snapshot, out: &mut Samples<'_>) {
    for runtime in &snapshot.server.runtimes {
        labelled(runtime, &[Label::Text("runtime", runtime.runtime)], runtime.age, out);
    }
}

/// A sample with these labels, and with `server`, which comes after them in the alphabet, where there is more than one.
fn labelled(runtime: &Runtime, labels: &[Label<'_>], value: impl Into<Value>, out: &mut Samples<'_>) {
    match &runtime.server {
        None => out.labelled(labels, value),
        Some(server) => {
            let mut labels = labels.to_vec();
            labels.push(Label::Text("server", server));
            out.labelled(&labels, value);
        }
    }
}
