//! What a server on this machine costs, as its kernel counts it (proc(5)).

use std::{fs, io, time::Duration};

/// What some processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time of their living threads.
    pub cpu: Duration,
    /// Memory of their own, in bytes: not what files are mapped into.
    pub memory: u64,
}

/// What a run added to that.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// While connections were made.
    pub connecting: Duration,
    /// While it was measured.
    pub serving: Duration,
    /// From before the first connection to when all were there, in bytes.
    pub memory: u64,
}

impl Usage {
    /// Of all these processes together.
    ///
    /// # Errors
    /// Which of them cannot be looked at.
    pub fn of(pids: &[u32]) -> Result<Self, String> {
        let mut sum = Usage::default();
        for pid in pids {
            let one = process(*pid).map_err(|error| format!("look at process {pid}: {error}"))?;
            sum = Usage { cpu: sum.cpu + one.cpu, memory: sum.memory + one.memory };
        }
        Ok(sum)
    }
}

fn process(pid: u32) -> io::Result<Usage> {
    let mut cpu = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // In nanoseconds, where the times in `stat` are in hundredths of a second.
        let told = match fs::read_to_string(task?.path().join("schedstat")) {
            // It has ended since it was listed.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
            told => told?,
        };
        let spent = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
        cpu += Duration::from_nanos(spent.ok_or(io::ErrorKind::InvalidData)?);
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    Ok(Usage { cpu, memory: kib.ok_or(io::ErrorKind::InvalidData)? << 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_cost_something_ourselves() {
        let own = Usage::of(&[std::process::id()]).expect("we may look at ourselves");
        assert!(own.cpu > Duration::ZERO && own.memory > 4096, "{own:?}");
        assert!(Usage::of(&[u32::MAX]).is_err_and(|why| why.contains("4294967295")));
    }
}
