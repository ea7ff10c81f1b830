//! `/metrics`, in the text format that Prometheus scrapes.
//!
//! Owns the encoding and the figures of the process itself. What else is counted, each part registers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tidings_http::Problem;

const TEXT_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Adds the process's own figures under the names that Prometheus clients share.
pub fn register_process_metrics(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessCollector));
}

pub(crate) fn router(registry: Registry) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Arc::new(registry))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            Problem::internal("the metrics cannot be encoded").into_response()
        }
    }
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(memory) = resident_memory() else { return Ok(()) };
        let figures = [
            ("process_resident_memory", "Memory in use", memory.resident_bytes),
            ("process_resident_memory_peak", "Most memory ever in use", memory.peak_bytes),
        ];
        for (name, help, bytes) in figures {
            let gauge = ConstGauge::new(bytes);
            let descriptor =
                encoder.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        Ok(())
    }
}

/// What the kernel says about this process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidentMemory {
    /// Now.
    pub resident_bytes: i64,
    /// At most, since the process began.
    pub peak_bytes: i64,
}

/// Reads `/proc/self/status`; `None` where there is none.
pub fn resident_memory() -> Option<ResidentMemory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = |field: &str| -> Option<i64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(ResidentMemory {
        resident_bytes: kilobytes("VmRSS")? * 1024,
        peak_bytes: kilobytes("VmHWM")? * 1024,
    })
}
