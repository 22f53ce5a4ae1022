//! NVIDIA's management library (NVML), loaded where it is installed.
//!
//! Its calls can hang on a processor that does not answer, so all of this runs on the thread of [`super::Gpus`].

use std::collections::HashMap;
use std::ffi::OsStr;

use miharu_linux::Roots;
use miharu_linux::process::ProcDir;
use miharu_linux::read::Buffer;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{ProcessInfo, ProcessUtilizationSample};
use nvml_wrapper::{Device, Nvml};

use super::{Source, Unavailable, Use};

/// The library's name as the driver installs it; the dynamic linker knows where.
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";

/// The most processors that are looked at.
const MAX_GPUS: u32 = 64;

/// The most processes of one processor that are looked at.
const MAX_PROCESSES: usize = 4096;

/// The library, with the drivers of all processors ready.
pub(super) struct Library {
    nvml: Nvml,
    roots: Roots,
    buffer: Buffer,
    /// When the last sample of each processor was taken, in the library's own clock.
    last: HashMap<String, u64>,
}

/// Loads it.
///
/// # Errors
/// [`Unavailable::Absent`] where there is no such library, or no driver that it could speak to.
pub(super) fn load(path: &OsStr, roots: &Roots) -> Result<Box<dyn Source>, Unavailable> {
    match Nvml::builder().lib_path(path).init() {
        Ok(nvml) => {
            Ok(Box::new(Library { nvml, roots: roots.clone(), buffer: Buffer::new(), last: HashMap::new() }))
        }
        Err(NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded | NvmlError::LibraryNotFound) => {
            Err(Unavailable::Absent)
        }
        Err(error) => Err(Unavailable::Broken(error.to_string())),
    }
}

impl Source for Library {
    fn uses(&mut self) -> Result<Vec<Use>, String> {
        let Self { nvml, roots, buffer, last } = self;
        let count = nvml.device_count().map_err(|error| error.to_string())?;
        let mut uses = Vec::new();
        for index in 0..count.min(MAX_GPUS) {
            // One processor that has failed, or may not be seen, takes no other's figures away.
            let Ok(device) = nvml.device_by_index(index) else { continue };
            let is_divided = device.mig_mode().is_ok_and(|mode| mode.current != 0);
            let Ok(gpu) = device.uuid() else { continue };
            if is_divided {
                continue;
            }
            let since = last.get(&gpu).copied();
            let samples = samples(&device, since);
            let newest = samples.iter().flatten().map(|sample| sample.timestamp).max();
            if let Some(newest) = newest {
                last.insert(gpu.clone(), newest);
            }
            let worked = samples.as_deref().map(ratios);
            for (pid, memory) in memory(&device) {
                // One that has ended since is nobody's any more.
                let process = ProcDir::open(roots, pid);
                let Ok(memberships) = process.and_then(|process| process.memberships(buffer)) else {
                    continue;
                };
                let utilization = worked.as_ref().map(|worked| worked.get(&pid).copied().unwrap_or(0.0));
                uses.push(Use { gpu: gpu.clone(), pid, memberships, utilization, memory });
            }
        }
        Ok(uses)
    }
}

/// What each process worked since the last look; nothing where the processor cannot tell.
fn samples(device: &Device<'_>, since: Option<u64>) -> Option<Vec<ProcessUtilizationSample>> {
    match device.process_utilization_stats(since) {
        Ok(samples) => Some(samples),
        // Nobody worked.
        Err(NvmlError::NotFound) => Some(Vec::new()),
        Err(_) => None,
    }
}

/// The mean of the samples of each process, 0 to 1. Percentages over 100 are left out: drivers tell such of processes that
/// have just ended.
fn ratios(samples: &[ProcessUtilizationSample]) -> HashMap<u32, f64> {
    let mut sums: HashMap<u32, (u32, u32)> = HashMap::new();
    for sample in samples.iter().filter(|sample| sample.sm_util <= 100).take(MAX_PROCESSES) {
        let (sum, count) = sums.entry(sample.pid).or_default();
        *sum += sample.sm_util;
        *count += 1;
    }
    let mean = |(pid, (sum, count)): (u32, (u32, u32))| (pid, f64::from(sum) / f64::from(count) / 100.0);
    sums.into_iter().map(mean).collect()
}

/// The memory of each process that computes or draws. One that does both is in both lists with all that it holds.
fn memory(device: &Device<'_>) -> HashMap<u32, Option<u64>> {
    // Older drivers lack the newer form of the question.
    let computing = device.running_compute_processes().or_else(|_| device.running_compute_processes_v2());
    let drawing = device.running_graphics_processes().or_else(|_| device.running_graphics_processes_v2());
    let mut processes: HashMap<u32, Option<u64>> = HashMap::new();
    let all = computing.into_iter().flatten().chain(drawing.into_iter().flatten());
    for ProcessInfo { pid, used_gpu_memory, .. } in all.take(MAX_PROCESSES) {
        let used = match used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let memory = processes.entry(pid).or_default();
        *memory = (*memory).max(used);
    }
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pid: u32, sm_util: u32) -> ProcessUtilizationSample {
        ProcessUtilizationSample { pid, timestamp: 1, sm_util, mem_util: 0, enc_util: 0, dec_util: 0 }
    }

    #[test]
    fn a_process_worked_as_much_as_the_mean_of_its_samples() {
        let ratios =
            ratios(&[sample(1, 10), sample(2, 100), sample(1, 40), sample(1, u32::MAX), sample(3, 101)]);
        assert_eq!(ratios, HashMap::from([(1, 0.25), (2, 1.0)]));
    }

    #[test]
    fn a_library_that_is_not_there_is_no_failure() {
        let absent = load(OsStr::new("libmiharu-has-no-such.so.1"), &Roots::default());
        assert!(matches!(absent, Err(Unavailable::Absent)));
    }
}
