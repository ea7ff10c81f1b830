//! What every long-running command runs on: an executor and a log.

use anyhow::{Context, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// More threads than this would only add memory: the work is done by the disk and by librdkafka's own threads.
const MAX_WORKERS: usize = 4;
/// Threads for blocking calls (queries, offsets). An idle one ends by itself.
const MAX_BLOCKING_THREADS: usize = 32;

/// Runs a command to its end; what it left behind on other threads is not waited for.
pub fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_WORKERS))
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// Changes what is logged while the program runs.
pub struct LogFilter(Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>);

impl LogFilter {
    /// Logs by `filter` from now on; after an error as before.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        (self.0)(parse(filter)?)
    }
}

/// Sends the log to standard error: standard output belongs to results and to the ready line.
pub fn log_to_stderr(filter: &str) -> anyhow::Result<LogFilter> {
    let subscriber = tracing_subscriber::fmt().with_env_filter(parse(filter)?).with_writer(std::io::stderr);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A line that cannot be written is lost. The library would tell so where the line could not be written, and panic there.
    let subscriber = subscriber.with_ansi(colours).log_internal_errors(false).with_filter_reloading();
    let handle = subscriber.reload_handle();
    subscriber.try_init().map_err(|error| anyhow::anyhow!("start the log: {error}"))?;
    Ok(LogFilter(Box::new(move |filter| handle.reload(filter).context("change what is logged"))))
}

/// Reads `info` or `warn,tidings_broker=debug`. A word alone has to be a level: the library takes any other for a target, and
/// then nothing else is logged, so that a typing error would silence errors, too.
fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let mut words =
        filter.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains(['=', '[']));
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
        bail!(
            "log: expected off, error, warn, info, debug or trace, or a list as warn,tidings_broker=debug, found {word:?}"
        );
    }
    EnvFilter::try_new(filter).with_context(|| format!("log: {filter:?} is not a log filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_a_level() {
        for right in [
            "off",
            "error",
            "warn",
            "info",
            "DEBUG",
            "trace",
            "warn,tidings_broker=debug",
            "warn,[request]=trace",
            "",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for (wrong, found) in
            [("warning", "warning"), ("debgu", "debgu"), ("info,tidings_broker", "tidings_broker")]
        {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with("log: expected off, error, warn, info, debug or trace"), "{error}");
            assert!(error.ends_with(&format!("found {found:?}")), "{error}");
        }
    }
}
