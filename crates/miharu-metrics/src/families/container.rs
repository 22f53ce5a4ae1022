//! Producers of the families that have a row for each device of an instance.

use crate::encode::Samples;
use crate::figures::{Disk, Filesystem, Gpu, InstanceFigures, Interface, Sharing};
use crate::sample::{Label, Value};

pub(super) fn cpu(instance: &InstanceFigures, out: &mut Samples<'_>) {
    for row in &instance.figures.cpus {
        for (mode, time) in row.known() {
            let mode = Label::Text("mode", mode.as_str());
            match row.cpu {
                Some(cpu) => out.labelled(&[Label::Number("cpu", u64::from(cpu)), mode], time),
                None => out.labelled(&[mode], time),
            }
        }
    }
}

pub(super) fn disks<V: Into<Value>>(
    instance: &InstanceFigures,
    out: &mut Samples<'_>,
    figure: impl Fn(&Disk) -> Option<V>,
) {
    for disk in &instance.figures.disks {
        if let Some(value) = figure(disk) {
            out.labelled(&[Label::Text("device", &disk.device)], value);
        }
    }
}

pub(super) fn filesystems<V: Into<Value>>(
    instance: &InstanceFigures,
    out: &mut Samples<'_>,
    figure: impl Fn(&Filesystem) -> Option<V>,
) {
    for fs in &instance.figures.filesystems {
        if let Some(value) = figure(fs) {
            let labels = [
                Label::Text("device", &fs.device),
                Label::Text("fstype", &fs.fstype),
                Label::Text("mountpoint", &fs.mountpoint),
            ];
            out.labelled(&labels, value);
        }
    }
}

pub(super) fn shared(fs: &Filesystem) -> Option<bool> {
    match fs.sharing {
        Sharing::Unknown => None,
        Sharing::Own => Some(false),
        Sharing::Shared => Some(true),
    }
}

pub(super) fn interfaces(
    instance: &InstanceFigures,
    out: &mut Samples<'_>,
    figure: impl Fn(&Interface) -> Option<u64>,
) {
    for interface in &instance.figures.interfaces {
        if let Some(value) = figure(interface) {
            out.labelled(&[Label::Text("device", &interface.device)], value);
        }
    }
}

pub(super) fn gpus<V: Into<Value>>(
    instance: &InstanceFigures,
    out: &mut Samples<'_>,
    figure: impl Fn(&Gpu) -> Option<V>,
) {
    for gpu in &instance.figures.gpus {
        if let Some(value) = figure(gpu) {
            out.labelled(&[Label::Text("gpu", &gpu.gpu)], value);
        }
    }
}

pub(super) fn info(instance: &InstanceFigures, out: &mut Samples<'_>) {
    if let Some(info) = &instance.figures.info {
        let labels = [
            Label::Text("id", &info.id),
            Label::Text("runtime", &info.runtime),
            Label::Text("source", info.source),
        ];
        out.labelled(&labels, 1u64);
    }
}
