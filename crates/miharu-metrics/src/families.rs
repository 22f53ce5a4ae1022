//! The one list of families: name, help, type, and where each comes from in the figures.
//!
//! The order is that of the exposition. Names, labels and units are fixed by the dashboards of Incus and LXD.

mod container;
mod host;
mod runtimes;

use crate::Snapshot;
use crate::encode::{Format, Prefix, Samples};
use crate::figures::InstanceFigures;

/// What kind of figure a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// It only grows, while the instance runs.
    Counter,
    /// It moves both ways.
    Gauge,
}

impl MetricType {
    /// The word of the TYPE line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Where a family's samples come from.
#[derive(Clone, Copy)]
pub(crate) enum Producer {
    /// From the figures of each instance.
    Instance(fn(&InstanceFigures, &mut Samples<'_>)),
    /// From all instances that the reader may see, taken together.
    Instances(fn(&[&InstanceFigures], &mut Samples<'_>)),
    /// From the server itself.
    Server(fn(&Snapshot, &mut Samples<'_>)),
}

/// One metric family.
#[derive(Clone, Copy)]
pub struct Family {
    /// The name without its prefix; a counter's ends in `_total`.
    name: &'static str,
    /// Whether the server's prefix stands before the name.
    prefixed: bool,
    metric_type: MetricType,
    help: &'static str,
    pub(crate) producer: Producer,
}

impl Family {
    /// The whole name of its samples.
    #[must_use]
    pub fn name(&self, prefix: Prefix) -> String {
        if self.prefixed { [prefix.as_str(), "_", self.name].concat() } else { self.name.to_owned() }
    }

    /// The name without the server's prefix.
    #[must_use]
    pub fn bare_name(&self) -> &'static str {
        self.name
    }

    /// The name that OpenMetrics gives the family: a counter's without `_total`.
    #[must_use]
    pub fn openmetrics_name(&self, prefix: Prefix) -> String {
        let name = self.name(prefix);
        match self.metric_type {
            MetricType::Counter => name.strip_suffix("_total").map(str::to_owned).unwrap_or(name),
            MetricType::Gauge => name,
        }
    }

    /// Counter or gauge.
    #[must_use]
    pub fn metric_type(&self) -> MetricType {
        self.metric_type
    }

    /// What the family means, a sentence without quotes or newlines.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// The unit, where the name ends in one.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let name = match self.metric_type {
            MetricType::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            MetricType::Gauge => self.name,
        };
        ["seconds", "bytes", "cores", "ratio"]
            .into_iter()
            .find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
    }

    /// Whether there are samples of it for this instance. It encodes them, so it is nothing for a scrape.
    #[must_use]
    pub fn has_samples(&self, instance: &InstanceFigures) -> bool {
        let mut out = Vec::new();
        if let Producer::Instance(produce) = self.producer {
            produce(instance, &mut Samples::new(&mut out, self, Format::Text, Prefix::default()));
        }
        !out.is_empty()
    }

    /// Whether it speaks of instances, and so is seen by those who may see only some of them.
    #[must_use]
    pub fn is_of_instances(&self) -> bool {
        !matches!(self.producer, Producer::Server(_))
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    produce: fn(&InstanceFigures, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        prefixed: true,
        metric_type: MetricType::Counter,
        help,
        producer: Producer::Instance(produce),
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    produce: fn(&InstanceFigures, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        prefixed: true,
        metric_type: MetricType::Gauge,
        help,
        producer: Producer::Instance(produce),
    }
}

const fn server(
    name: &'static str,
    metric_type: MetricType,
    help: &'static str,
    produce: fn(&Snapshot, &mut Samples<'_>),
) -> Family {
    Family { name, prefixed: true, metric_type, help, producer: Producer::Server(produce) }
}

const fn process(
    name: &'static str,
    metric_type: MetricType,
    help: &'static str,
    produce: fn(&Snapshot, &mut Samples<'_>),
) -> Family {
    Family { name, prefixed: false, metric_type, help, producer: Producer::Server(produce) }
}

const INSTANCES_RUNNING: Family = Family {
    name: "instances_running",
    prefixed: true,
    metric_type: MetricType::Gauge,
    help: "Running instances.",
    producer: Producer::Instances(host::instances_running),
};

/// Every family, in the order of the exposition.
pub const FAMILIES: &[Family] = &[
    gauge("boot_time_seconds", "When the instance started, in seconds since the epoch.", |i, out| {
        out.plain(i.figures.boot_time_seconds);
    }),
    counter(
        "cpu_seconds_total",
        "CPU time by mode; idle, iowait and steal are not time used.",
        container::cpu,
    ),
    gauge("cpu_effective_total", "CPUs that the instance may run on.", |i, out| {
        out.plain(i.figures.cpu_effective)
    }),
    counter("disk_read_bytes_total", "Bytes read from the device.", |i, out| {
        container::disks(i, out, |disk| disk.read_bytes);
    }),
    counter("disk_reads_completed_total", "Reads from the device that were completed.", |i, out| {
        container::disks(i, out, |disk| disk.reads_completed);
    }),
    counter("disk_written_bytes_total", "Bytes written to the device.", |i, out| {
        container::disks(i, out, |disk| disk.written_bytes);
    }),
    counter("disk_writes_completed_total", "Writes to the device that were completed.", |i, out| {
        container::disks(i, out, |disk| disk.writes_completed);
    }),
    gauge(
        "filesystem_avail_bytes",
        "Bytes that an ordinary user of the instance may still take.",
        |i, out| {
            container::filesystems(i, out, |fs| fs.avail_bytes);
        },
    ),
    gauge("filesystem_free_bytes", "Bytes free in the file system.", |i, out| {
        container::filesystems(i, out, |fs| fs.free_bytes);
    }),
    gauge("filesystem_size_bytes", "Size of the file system.", |i, out| {
        container::filesystems(i, out, |fs| fs.size_bytes);
    }),
    gauge("memory_Active_anon_bytes", "Anonymous memory used of late.", |i, out| {
        out.plain(i.figures.memory.active_anon);
    }),
    gauge("memory_Active_file_bytes", "Page cache used of late.", |i, out| {
        out.plain(i.figures.memory.active_file)
    }),
    gauge("memory_Active_bytes", "Memory used of late: anonymous and page cache.", |i, out| {
        out.plain(i.figures.memory.active);
    }),
    gauge("memory_Inactive_anon_bytes", "Anonymous memory not used of late.", |i, out| {
        out.plain(i.figures.memory.inactive_anon);
    }),
    gauge("memory_Inactive_file_bytes", "Page cache not used of late.", |i, out| {
        out.plain(i.figures.memory.inactive_file);
    }),
    gauge("memory_Inactive_bytes", "Memory not used of late: anonymous and page cache.", |i, out| {
        out.plain(i.figures.memory.inactive);
    }),
    gauge("memory_Unevictable_bytes", "Memory that cannot be taken back, locked for example.", |i, out| {
        out.plain(i.figures.memory.unevictable);
    }),
    gauge("memory_Cached_bytes", "Page cache, tmpfs and shared memory included.", |i, out| {
        out.plain(i.figures.memory.cached);
    }),
    gauge("memory_Dirty_bytes", "Page cache waiting to be written to disk.", |i, out| {
        out.plain(i.figures.memory.dirty);
    }),
    gauge("memory_Writeback_bytes", "Page cache being written to disk.", |i, out| {
        out.plain(i.figures.memory.writeback);
    }),
    gauge("memory_Mapped_bytes", "Files mapped into processes.", |i, out| out.plain(i.figures.memory.mapped)),
    gauge("memory_Shmem_bytes", "Shared memory and tmpfs.", |i, out| out.plain(i.figures.memory.shmem)),
    gauge("memory_SReclaimable_bytes", "Kernel caches that can be taken back.", |i, out| {
        out.plain(i.figures.memory.sreclaimable);
    }),
    gauge("memory_RSS_bytes", "Anonymous memory held by processes.", |i, out| {
        out.plain(i.figures.memory.rss)
    }),
    gauge("memory_HugepagesFree_bytes", "Huge pages that may still be taken.", |i, out| {
        out.plain(i.figures.memory.hugepages_free);
    }),
    gauge("memory_HugepagesTotal_bytes", "Huge pages that may be taken in all.", |i, out| {
        out.plain(i.figures.memory.hugepages_total);
    }),
    gauge(
        "memory_MemTotal_bytes",
        "Memory that the instance may use: its own limit, one above it, or the host.",
        |i, out| {
            out.plain(i.figures.memory.mem_total);
        },
    ),
    gauge("memory_MemFree_bytes", "Memory not used at all.", |i, out| out.plain(i.figures.memory.mem_free)),
    gauge(
        "memory_MemAvailable_bytes",
        "Memory that can be had without swapping, caches given back.",
        |i, out| {
            out.plain(i.figures.memory.mem_available);
        },
    ),
    counter("memory_OOM_kills_total", "Processes killed for want of memory.", |i, out| {
        out.plain(i.figures.memory.oom_kills);
    }),
    gauge("memory_Swap_bytes", "Memory swapped out.", |i, out| out.plain(i.figures.memory.swap)),
    counter("network_receive_bytes_total", "Bytes received.", |i, out| {
        container::interfaces(i, out, |interface| interface.receive.bytes);
    }),
    counter("network_receive_packets_total", "Packets received.", |i, out| {
        container::interfaces(i, out, |interface| interface.receive.packets);
    }),
    counter("network_receive_errs_total", "Errors in receiving.", |i, out| {
        container::interfaces(i, out, |interface| interface.receive.errs);
    }),
    counter("network_receive_drop_total", "Packets dropped in receiving.", |i, out| {
        container::interfaces(i, out, |interface| interface.receive.drop);
    }),
    counter("network_transmit_bytes_total", "Bytes sent.", |i, out| {
        container::interfaces(i, out, |interface| interface.transmit.bytes);
    }),
    counter("network_transmit_packets_total", "Packets sent.", |i, out| {
        container::interfaces(i, out, |interface| interface.transmit.packets);
    }),
    counter("network_transmit_errs_total", "Errors in sending.", |i, out| {
        container::interfaces(i, out, |interface| interface.transmit.errs);
    }),
    counter("network_transmit_drop_total", "Packets dropped in sending.", |i, out| {
        container::interfaces(i, out, |interface| interface.transmit.drop);
    }),
    gauge(
        "procs_total",
        "Tasks that the host runs for a container, threads included; processes of a guest.",
        |i, out| {
            out.plain(i.figures.procs);
        },
    ),
    gauge("time_seconds", "The clock of the instance, in seconds since the epoch.", |i, out| {
        out.plain(i.figures.time_seconds);
    }),
    counter("cpu_cfs_periods_total", "Periods of CPU bandwidth control that passed.", |i, out| {
        out.plain(i.figures.throttling.periods);
    }),
    counter(
        "cpu_cfs_throttled_periods_total",
        "Periods in which the CPU limit held the instance back.",
        |i, out| {
            out.plain(i.figures.throttling.throttled_periods);
        },
    ),
    counter(
        "cpu_throttled_seconds_total",
        "Time for which the CPU limit held the instance back.",
        |i, out| {
            out.plain(i.figures.throttling.throttled_time);
        },
    ),
    gauge(
        "cpu_limit_cores",
        "CPU time that the instance may take, in CPUs; absent without a limit.",
        |i, out| {
            out.plain(i.figures.cpu_limit_cores);
        },
    ),
    counter("disk_read_time_seconds_total", "Time that reads from the device took.", |i, out| {
        container::disks(i, out, |disk| disk.read_time);
    }),
    counter("disk_write_time_seconds_total", "Time that writes to the device took.", |i, out| {
        container::disks(i, out, |disk| disk.write_time);
    }),
    gauge("filesystem_files", "Inodes of the file system.", |i, out| {
        container::filesystems(i, out, |fs| fs.files)
    }),
    gauge("filesystem_files_free", "Inodes free in the file system.", |i, out| {
        container::filesystems(i, out, |fs| fs.files_free);
    }),
    gauge(
        "filesystem_shared",
        "1 where the figures are those of a file system that others use too.",
        |i, out| {
            container::filesystems(i, out, container::shared);
        },
    ),
    gauge("memory_usage_bytes", "Memory charged to the instance, caches included.", |i, out| {
        out.plain(i.figures.memory.usage);
    }),
    gauge("memory_peak_bytes", "The most memory that was ever charged to the instance.", |i, out| {
        out.plain(i.figures.memory.peak);
    }),
    gauge("memory_working_set_bytes", "Memory charged less the page cache not used of late.", |i, out| {
        out.plain(i.figures.memory.working_set);
    }),
    counter("memory_major_faults_total", "Page faults that needed a disk.", |i, out| {
        out.plain(i.figures.memory.major_faults);
    }),
    counter("pressure_cpu_waiting_seconds_total", "Time in which some task waited for a CPU.", |i, out| {
        out.plain(i.figures.pressure.cpu_waiting);
    }),
    counter(
        "pressure_memory_waiting_seconds_total",
        "Time in which some task waited for memory.",
        |i, out| {
            out.plain(i.figures.pressure.memory_waiting);
        },
    ),
    counter(
        "pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory.",
        |i, out| {
            out.plain(i.figures.pressure.memory_stalled);
        },
    ),
    counter(
        "pressure_io_waiting_seconds_total",
        "Time in which some task waited for input or output.",
        |i, out| {
            out.plain(i.figures.pressure.io_waiting);
        },
    ),
    counter(
        "pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for input or output.",
        |i, out| {
            out.plain(i.figures.pressure.io_stalled);
        },
    ),
    gauge(
        "hypervisor_memory_RSS_bytes",
        "Memory of the host that the virtual machine monitor holds.",
        |i, out| {
            out.plain(i.figures.hypervisor.rss);
        },
    ),
    gauge(
        "hypervisor_memory_Swap_bytes",
        "Memory of the virtual machine monitor that is swapped out.",
        |i, out| {
            out.plain(i.figures.hypervisor.swap);
        },
    ),
    gauge(
        "gpu_utilization_ratio",
        "The part of the time for which the GPU computed for the instance, 0 to 1.",
        |i, out| container::gpus(i, out, |gpu| gpu.utilization),
    ),
    gauge("gpu_memory_used_bytes", "Memory of the GPU that the instance holds.", |i, out| {
        container::gpus(i, out, |gpu| gpu.memory_used_bytes);
    }),
    gauge(
        "instance_info",
        "What runs the instance and where its figures come from, always 1.",
        container::info,
    ),
    gauge("instance_scrape_success", "1 where the last collection could read the instance.", |i, out| {
        out.plain(i.figures.scrape.map(|scrape| scrape.success));
    }),
    gauge(
        "instance_scrape_duration_seconds",
        "How long the last collection of the instance took.",
        |i, out| {
            out.plain(i.figures.scrape.map(|scrape| scrape.duration));
        },
    ),
    INSTANCES_RUNNING,
    server("uptime_seconds", MetricType::Gauge, "How long the server has been running.", |s, out| {
        out.plain(s.server.uptime);
    }),
    server("operations_total", MetricType::Gauge, "Operations in progress.", |s, out| {
        out.plain(s.server.operations)
    }),
    server("warnings_total", MetricType::Gauge, "Warnings that stand.", |s, out| {
        out.plain(s.server.warnings)
    }),
    server(
        "cluster_sync_age_seconds",
        MetricType::Gauge,
        "For how long this member has not known its copy to be what the cluster holds.",
        |s, out| {
            out.plain(s.server.cluster_sync_age);
        },
    ),
    server(
        "certificate_expiry_timestamp_seconds",
        MetricType::Gauge,
        "When the certificate ends, of several the first that has not ended, in seconds since the epoch.",
        host::certificates,
    ),
    server(
        "api_requests_completed_total",
        MetricType::Counter,
        "API requests answered, by what they were about and how they ended.",
        host::api_requests_completed,
    ),
    server(
        "api_requests_ongoing",
        MetricType::Gauge,
        "API requests being answered, by what they are about.",
        host::api_requests_ongoing,
    ),
    server(
        "scrape_collect_seconds",
        MetricType::Gauge,
        "How long the collection of these figures took.",
        |s, out| {
            out.plain(s.server.collect_duration);
        },
    ),
    server(
        "scrape_timestamp_seconds",
        MetricType::Gauge,
        "When these figures were collected, in seconds since the epoch.",
        |s, out| out.plain(s.server.collect_timestamp_seconds),
    ),
    process(
        "process_cpu_seconds_total",
        MetricType::Counter,
        "Total user and system CPU time spent in seconds.",
        |s, out| out.plain(s.server.process.cpu),
    ),
    process("process_max_fds", MetricType::Gauge, "Maximum number of open file descriptors.", |s, out| {
        out.plain(s.server.process.max_fds);
    }),
    process("process_open_fds", MetricType::Gauge, "Number of open file descriptors.", |s, out| {
        out.plain(s.server.process.open_fds);
    }),
    process(
        "process_resident_memory_bytes",
        MetricType::Gauge,
        "Resident memory size in bytes.",
        |s, out| {
            out.plain(s.server.process.resident_memory_bytes);
        },
    ),
    process(
        "process_start_time_seconds",
        MetricType::Gauge,
        "Start time of the process since unix epoch in seconds.",
        |s, out| out.plain(s.server.process.start_time_seconds),
    ),
    process("process_virtual_memory_bytes", MetricType::Gauge, "Virtual memory size in bytes.", |s, out| {
        out.plain(s.server.process.virtual_memory_bytes);
    }),
    server(
        "project_resources_total",
        MetricType::Gauge,
        "What a project of Incus or LXD has, by kind.",
        runtimes::resources,
    ),
    server(
        "project_limit",
        MetricType::Gauge,
        "How much a project of Incus or LXD may take, -1 without a limit.",
        runtimes::limits,
    ),
    server("project_usage", MetricType::Gauge, "How much a project of Incus or LXD takes.", runtimes::usage),
    server(
        "storage_pool_size_bytes",
        MetricType::Gauge,
        "Size of a storage pool of Incus or LXD.",
        |s, out| {
            runtimes::pools(s, out, |pool| pool.size_bytes);
        },
    ),
    server(
        "storage_pool_used_bytes",
        MetricType::Gauge,
        "Bytes used of a storage pool of Incus or LXD.",
        |s, out| runtimes::pools(s, out, |pool| pool.used_bytes),
    ),
    server(
        "runtime_age_seconds",
        MetricType::Gauge,
        "How long ago the daemon of Incus or LXD told the figures of its projects and storage pools.",
        runtimes::age,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_do_not_clash_in_either_format() {
        let mut text = BTreeSet::new();
        let mut openmetrics = BTreeSet::new();
        for family in FAMILIES {
            assert!(text.insert(family.name(Prefix::Incus)), "{} twice", family.name);
            assert!(openmetrics.insert(family.openmetrics_name(Prefix::Incus)), "{} twice", family.name);
        }
        // A gauge `x_total` beside a counter `x` (whose samples are `x_total`) would be two families of one name.
        for family in FAMILIES {
            if let Some(base) = family.name(Prefix::Incus).strip_suffix("_total") {
                let clash = family.metric_type == MetricType::Gauge && openmetrics.contains(base);
                assert!(!clash, "gauge {} beside counter {base}", family.name);
            }
        }
    }

    #[test]
    fn every_counter_is_called_total() {
        for family in FAMILIES.iter().filter(|f| f.metric_type == MetricType::Counter) {
            assert!(family.name.ends_with("_total"), "{}", family.name);
        }
    }

    #[test]
    fn help_is_one_plain_sentence() {
        for family in FAMILIES {
            assert!(
                family.help.ends_with('.') && !family.help.contains(['"', '\\', '\n']),
                "{}",
                family.name
            );
        }
    }

    #[test]
    fn units_are_read_off_the_names() {
        let unit = |name: &str| FAMILIES.iter().find(|f| f.name == name).unwrap().unit();
        assert_eq!(unit("cpu_seconds_total"), Some("seconds"));
        assert_eq!(unit("memory_MemTotal_bytes"), Some("bytes"));
        assert_eq!(unit("cpu_limit_cores"), Some("cores"));
        assert_eq!(unit("procs_total"), None);
    }
}
