//! Metrics of the disk that the data directory is on, whether a broker of ours writes there or only the services.

use std::path::PathBuf;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tidings_log::{Disk, RealDisk};

/// Adds `tidings_data_dir_free_bytes` and `tidings_data_dir_size_bytes`, as the file system tells them at each scrape.
pub fn register_space(registry: &mut Registry, data_dir: PathBuf) {
    registry.register_collector(Box::new(SpaceCollector { data_dir }));
}

#[derive(Debug)]
struct SpaceCollector {
    data_dir: PathBuf,
}

impl Collector for SpaceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(space) = RealDisk.space(&self.data_dir) else { return Ok(()) };
        let figures = [
            (
                "tidings_data_dir_free",
                "Bytes that are free on the data directory's disk",
                space.available_bytes,
            ),
            ("tidings_data_dir_size", "Bytes of the data directory's disk", space.total_bytes),
        ];
        for (name, help, bytes) in figures {
            let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(
                name,
                help,
                Some(&Unit::Bytes),
                gauge.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
