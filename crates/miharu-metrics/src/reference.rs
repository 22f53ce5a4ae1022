//! What the reference page says of each family beside its name, type and help: its labels, and where its figures come from.
//!
//! `make references` writes the tables of docs/reference/metrics.md from this and the list of families; a test holds the page to
//! both, and the labels to what is served.

/// One table of the page.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// What the marks around it in the page are called.
    pub name: &'static str,
    /// Its rows, in their order.
    pub rows: &'static [Row],
}

/// What is said of one family.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name without the prefix.
    pub family: &'static str,
    /// The labels that it has beside `name`, `project` and `type`.
    pub labels: &'static [&'static str],
    /// Where its figures come from, or more than its help says.
    pub text: Text,
}

/// The cells that no other list can fill, as Markdown.
#[derive(Debug, Clone, Copy)]
pub enum Text {
    /// The files of a container's cgroup, by the version of the controller's hierarchy.
    Files {
        /// Version 2.
        v2: &'static str,
        /// Version 1.
        v1: &'static str,
    },
    /// What it means, in more words than its help has.
    Meaning(&'static str),
}

const fn files(
    family: &'static str,
    labels: &'static [&'static str],
    v2: &'static str,
    v1: &'static str,
) -> Row {
    Row { family, labels, text: Text::Files { v2, v1 } }
}

const fn meaning(family: &'static str, labels: &'static [&'static str], text: &'static str) -> Row {
    Row { family, labels, text: Text::Meaning(text) }
}

/// Every table, in the order of the page. Each family is in one of them, once.
pub const TABLES: &[Table] = &[
    Table { name: "containers", rows: CONTAINERS },
    Table { name: "memory", rows: MEMORY },
    Table { name: "network", rows: NETWORK },
    Table { name: "every-instance", rows: EVERY_INSTANCE },
    Table { name: "gpus", rows: GPUS },
    Table { name: "server", rows: SERVER },
    Table { name: "runtimes", rows: RUNTIMES },
];

const FILESYSTEM: &[&str] = &["device", "fstype", "mountpoint"];

// A row is a line, as in the table that it becomes.
#[rustfmt::skip]
const CONTAINERS: &[Row] = &[
    files("boot_time_seconds", &[], "start time of the container's first process (`/proc/PID/stat`)", "same"),
    files("cpu_seconds_total", &["cpu", "mode"], "`cpu.stat`: `user_usec`, `system_usec`, as `cpu=\"0\"`", "`cpuacct.usage_all`: user and system of each CPU"),
    files("cpu_effective_total", &[], "CPUs in `cpuset.cpus.effective` of the nearest cgroup up the tree that has it", "`cpuset.effective_cpus`, likewise"),
    files("cpu_cfs_periods_total", &[], "`cpu.stat`: `nr_periods`", "same"),
    files("cpu_cfs_throttled_periods_total", &[], "`cpu.stat`: `nr_throttled`", "same"),
    files("cpu_throttled_seconds_total", &[], "`cpu.stat`: `throttled_usec`", "`cpu.stat`: `throttled_time`"),
    files("cpu_limit_cores", &[], "`cpu.max`, quota ÷ period, the smallest up the tree; absent without a limit", "`cpu.cfs_quota_us` ÷ `cpu.cfs_period_us`, likewise"),
    files("disk_read_bytes_total", &["device"], "`io.stat`: `rbytes`", "`blkio.throttle.io_service_bytes_recursive`"),
    files("disk_reads_completed_total", &["device"], "`io.stat`: `rios`", "`blkio.throttle.io_serviced_recursive`"),
    files("disk_written_bytes_total", &["device"], "`io.stat`: `wbytes`", "`blkio.throttle.io_service_bytes_recursive`"),
    files("disk_writes_completed_total", &["device"], "`io.stat`: `wios`", "`blkio.throttle.io_serviced_recursive`"),
    files("filesystem_size_bytes", FILESYSTEM, "statfs of the container's root and of the disks mounted into it; `mountpoint` as seen inside", "same"),
    files("filesystem_free_bytes", FILESYSTEM, "same", "same"),
    files("filesystem_avail_bytes", FILESYSTEM, "same", "same"),
    files("filesystem_files", FILESYSTEM, "same; absent where the file system has no fixed number of inodes", "same"),
    files("filesystem_files_free", FILESYSTEM, "same", "same"),
    files("filesystem_shared", FILESYSTEM, "1 where the figures are those of a file system that others use too, else 0", "same"),
    files("disk_read_time_seconds_total", &["device"], "none: for [virtual machines](#virtual-machines)", "none"),
    files("disk_write_time_seconds_total", &["device"], "none: for [virtual machines](#virtual-machines)", "none"),
];

#[rustfmt::skip]
const MEMORY: &[Row] = &[
    files("memory_Active_anon_bytes", &[], "`memory.stat`: `active_anon`", "`memory.stat`: `total_active_anon`"),
    files("memory_Active_file_bytes", &[], "`active_file`", "`total_active_file`"),
    files("memory_Active_bytes", &[], "the two together", "the two together"),
    files("memory_Inactive_anon_bytes", &[], "`inactive_anon`", "`total_inactive_anon`"),
    files("memory_Inactive_file_bytes", &[], "`inactive_file`", "`total_inactive_file`"),
    files("memory_Inactive_bytes", &[], "the two together", "the two together"),
    files("memory_Unevictable_bytes", &[], "`unevictable`", "`total_unevictable`"),
    files("memory_Cached_bytes", &[], "`file`", "`total_cache`"),
    files("memory_Dirty_bytes", &[], "`file_dirty`", "`total_dirty`"),
    files("memory_Writeback_bytes", &[], "`file_writeback`", "`total_writeback`"),
    files("memory_Mapped_bytes", &[], "`file_mapped`", "`total_mapped_file`"),
    files("memory_Shmem_bytes", &[], "`shmem`", "`total_shmem`"),
    files("memory_SReclaimable_bytes", &[], "`slab_reclaimable`", "none: the kernel does not tell"),
    files("memory_RSS_bytes", &[], "`anon`", "`total_rss`"),
    files("memory_HugepagesTotal_bytes", &[], "over the page sizes that are limited (`hugetlb.SIZE.max`): the smaller of the limit and the host's pool", "`hugetlb.SIZE.limit_in_bytes`, likewise"),
    files("memory_HugepagesFree_bytes", &[], "the total less `hugetlb.SIZE.current`", "the total less `hugetlb.SIZE.usage_in_bytes`"),
    files("memory_MemTotal_bytes", &[], "the smallest of the host's memory and every `memory.max` up the tree", "the same with `hierarchical_memory_limit`"),
    files("memory_MemFree_bytes", &[], "MemTotal less `memory.current`", "MemTotal less `memory.usage_in_bytes`"),
    files("memory_MemAvailable_bytes", &[], "the smallest, over the tree, of limit − usage + what can be taken back (Cached − Shmem + SReclaimable), and the host's own MemAvailable", "same"),
    files("memory_OOM_kills_total", &[], "`memory.events`: `oom_kill`", "`memory.oom_control`: `oom_kill`; absent where the cgroup has children, as it does not count theirs"),
    files("memory_Swap_bytes", &[], "`memory.swap.current`", "`total_swap`"),
    files("memory_usage_bytes", &[], "`memory.current`", "`memory.usage_in_bytes`"),
    files("memory_peak_bytes", &[], "`memory.peak` (kernel 5.19)", "`memory.max_usage_in_bytes`"),
    files("memory_working_set_bytes", &[], "usage less `inactive_file`", "usage less `total_inactive_file`"),
    files("memory_major_faults_total", &[], "`pgmajfault`", "`total_pgmajfault`"),
];

#[rustfmt::skip]
const NETWORK: &[Row] = &[
    files("network_receive_bytes_total", &["device"], "`/proc/PID/net/dev`", "same"),
    files("network_receive_packets_total", &["device"], "same", "same"),
    files("network_receive_errs_total", &["device"], "same", "same"),
    files("network_receive_drop_total", &["device"], "same", "same"),
    files("network_transmit_bytes_total", &["device"], "same", "same"),
    files("network_transmit_packets_total", &["device"], "same", "same"),
    files("network_transmit_errs_total", &["device"], "same", "same"),
    files("network_transmit_drop_total", &["device"], "same", "same"),
    files("procs_total", &[], "`pids.current`: tasks, threads included", "same"),
    files("time_seconds", &[], "the host's clock", "same"),
    files("pressure_cpu_waiting_seconds_total", &[], "`cpu.pressure`: `some`", "the same file of the container's cgroup in the unified hierarchy, where it is mounted beside"),
    files("pressure_memory_waiting_seconds_total", &[], "`memory.pressure`: `some`", "likewise"),
    files("pressure_memory_stalled_seconds_total", &[], "`memory.pressure`: `full`", "likewise"),
    files("pressure_io_waiting_seconds_total", &[], "`io.pressure`: `some`", "likewise"),
    files("pressure_io_stalled_seconds_total", &[], "`io.pressure`: `full`", "likewise"),
];

#[rustfmt::skip]
const EVERY_INSTANCE: &[Row] = &[
    meaning("instance_info", &["runtime", "source", "id"], "always 1: what runs it, where its figures come from (`cgroup1`, `cgroup2`; of a virtual machine `agent`, `qga`, `host`), and what its runtime calls it"),
    meaning("instance_scrape_success", &[], "1 where the last collection could read it, else 0"),
    meaning("instance_scrape_duration_seconds", &[], "how long that took"),
    meaning("instances_running", &[], "how many run, by `project` and `type` alone"),
    meaning("hypervisor_memory_RSS_bytes", &[], "for virtual machines, whatever tells of the guest: VmRSS + HugetlbPages of the QEMU process"),
    meaning("hypervisor_memory_Swap_bytes", &[], "likewise: VmSwap of the QEMU process"),
];

#[rustfmt::skip]
const GPUS: &[Row] = &[
    meaning("gpu_utilization_ratio", &["gpu"], "the part of the time, 0 to 1, for which the processor's cores worked for the instance: of each of its processes the mean of the `smUtil` samples that the driver took since the last collection (it keeps those in which the process worked), all added up, 1 at most; 0 for processes without one, absent where the processor cannot tell"),
    meaning("gpu_memory_used_bytes", &["gpu"], "memory of the processor that the instance's processes hold, for computing and for graphics"),
];

#[rustfmt::skip]
const SERVER: &[Row] = &[
    meaning("uptime_seconds", &[], "how long the server has been running"),
    meaning("operations_total", &[], "operations in progress, as `/1.0/operations` lists them: join tokens that can still be used"),
    meaning("warnings_total", &[], "warnings that stand"),
    meaning("cluster_sync_age_seconds", &[], "on a member of a cluster: for how long its copy has not been known to be what etcd holds; 0 to 3 while it is in step"),
    meaning("certificate_expiry_timestamp_seconds", &["certificate"], "when a certificate ends: the one that the server shows (`server`; in a cluster `cluster.crt`), and the first to end of those of [`server.ca`](../how-to/trust.md) (`authority`) and of the trusted ones (`trusted`, bearer tokens left out), each without those that have ended. What a cluster has once is told by one of its members"),
    meaning("api_requests_completed_total", &["entity_type", "result"], "requests answered, `result` being `succeeded`, `error_client` or `error_server`"),
    meaning("api_requests_ongoing", &["entity_type"], "requests being answered"),
    meaning("scrape_collect_seconds", &[], "how long the collection of these figures took"),
    meaning("scrape_timestamp_seconds", &[], "when they were collected: a cached answer is byte for byte the same"),
    meaning("process_cpu_seconds_total", &[], "CPU time of `miharud`"),
    meaning("process_max_fds", &[], "descriptors that it may open"),
    meaning("process_open_fds", &[], "descriptors that it has open"),
    meaning("process_resident_memory_bytes", &[], "its resident memory"),
    meaning("process_start_time_seconds", &[], "when it started"),
    meaning("process_virtual_memory_bytes", &[], "its virtual memory"),
];

#[rustfmt::skip]
const RUNTIMES: &[Row] = &[
    meaning("project_resources_total", &["project", "resource"], "what a project has, by kind: `containers`, `virtual-machines`, `images`, `networks`, `profiles`, `storage-volumes` (custom volumes)"),
    meaning("project_limit", &["project", "resource"], "how much the project may take, -1 without a limit, as Incus writes it: `containers`, `virtual-machines`, `instances`, `networks`, `processes`, `cpu` (CPUs), `memory` and `disk` (bytes), and what else the daemon tells"),
    meaning("project_usage", &["project", "resource"], "how much of that it takes, as the daemon counts it: of CPUs, memory, disk and processes the sum of what its instances may take"),
    meaning("storage_pool_size_bytes", &["driver", "pool"], "the pool's size"),
    meaning("storage_pool_used_bytes", &["driver", "pool"], "how much of it is used"),
    meaning("runtime_age_seconds", &["runtime"], "how old these figures are; `runtime` is `incus` or `lxd`"),
];
