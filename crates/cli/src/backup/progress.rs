//! How far a copy is. The bar is for people: it is not shown where nobody looks.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many bytes.
pub fn progress(bytes: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:30!} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    Ok(ProgressBar::new(bytes).with_style(style))
}
