//! `tidings demo`: the platform, real flights played through it, and what became of them.

use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use crate::args::DemoArgs;
use crate::backup::require_restored;
use crate::config::Config;
use crate::demo::dataset::Dataset;
use crate::demo::player::{PlayOptions, play};
use crate::demo::progress::{until_stored, writer_lag};
use crate::demo::queries::show_answers;
use crate::demo::summary::Summary;
use crate::demo::verify::verify;
use crate::output::{print, print_json, thousands};
use crate::platform::{Platform, block_on, log_to_stderr};
use crate::shutdown::StopSignal;

const SAMPLE_TIME_LIMIT: Duration = Duration::from_secs(120);
const FULL_TIME_LIMIT: Duration = Duration::from_secs(900);

/// Runs the demo.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let dataset = Dataset::find(args.full)?;
    let config = Config::of_demo(&args.data_dir, &args.kafka, &args.http)?;
    log_to_stderr(&config.log)?;
    require_restored(&config.data_dir)?;
    block_on(async {
        let mut stop = StopSignal::install()?;
        let platform = Platform::start(&config).await?;
        let result = tokio::select! {
            result = run_on(&platform, &args, dataset) => result,
            () = stop.received() => Err(anyhow::anyhow!("interrupted; what was accepted is safe, run it again to go on")),
        };
        if result.is_ok() && !args.exit {
            stop.received().await;
        }
        stop.finish(platform.shutdown()).await;
        result
    })
}

/// Plays, checks and reports; an error unless every event is stored exactly once.
async fn run_on(platform: &Platform, args: &DemoArgs, dataset: Dataset) -> anyhow::Result<()> {
    let limit = args.time_limit.map(Duration::from_secs);
    let limit = limit.unwrap_or_else(|| time_limit(args.full, args.rate, dataset.size().1));
    let deadline = Instant::now() + limit;
    if !args.json {
        greet(platform, args, &dataset)?;
    }
    let summary = measure(platform, args, &dataset, deadline).await?;
    if args.json {
        print_json(&summary)?;
    } else {
        print("\n")?;
        summary.print()?;
        show_answers(platform.http_address(), !args.exit).await?;
    }
    if !summary.exactly_once {
        bail!("{} of {} events are stored", thousands(summary.stored), thousands(summary.events));
    }
    Ok(())
}

/// What is played slowly takes as long as that takes, besides.
fn time_limit(full: bool, rate: Option<u32>, events: u64) -> Duration {
    let limit = if full { FULL_TIME_LIMIT } else { SAMPLE_TIME_LIMIT };
    limit + rate.map_or(Duration::ZERO, |rate| Duration::from_secs(events.div_ceil(u64::from(rate))))
}

async fn measure(
    platform: &Platform,
    args: &DemoArgs,
    dataset: &Dataset,
    deadline: Instant,
) -> anyhow::Result<Summary> {
    let (flights, events) = dataset.size();
    let bars = MultiProgress::new();
    let accepted_bar = bars.add(bar(events, "accepted"));
    let stored_bar = bars.add(bar(events, "stored"));
    let begun = Instant::now();
    let options = PlayOptions {
        http: platform.http_address().to_string(),
        dataset: dataset.clone(),
        rate: args.rate,
        deadline,
    };
    let playing = async {
        let played = play(options, &accepted_bar).await;
        accepted_bar.finish();
        played
    };
    let metrics = platform.activity_metrics();
    let storing = until_stored(platform, events, &stored_bar, deadline);
    let (played, ()) = tokio::try_join!(playing, storing)?;
    let seconds = begun.elapsed().as_secs_f64();
    let checked_bar = bars.add(bar(events, "checked"));
    let verdict = verify(platform.store(), dataset.clone(), checked_bar).await?;
    let memory = tidings_console::metrics::resident_memory();
    Ok(Summary {
        flights,
        events,
        accepted: played.accepted,
        stored: verdict.found,
        duplicates: metrics.duplicates.get(),
        dead_letters: metrics.dead_letters.get(),
        lag: writer_lag(platform).await?,
        retries: played.retries,
        seconds,
        accepted_per_second: played.events_per_second(),
        events_per_second: played.accepted as f64 / seconds.max(0.001),
        ack_p50_ms: played.ack_quantile_ms(0.5),
        ack_p99_ms: played.ack_quantile_ms(0.99),
        peak_memory_bytes: memory.map_or(0, |memory| memory.peak_bytes.unsigned_abs()),
        exactly_once: verdict.is_exactly_once(),
    })
}

fn greet(platform: &Platform, args: &DemoArgs, dataset: &Dataset) -> anyhow::Result<()> {
    let (flights, events) = dataset.size();
    let what = if args.full { "the whole year 2013" } else { "1 to 14 January 2013" };
    let ready = platform.ready();
    let kafka = ready.kafka.map_or_else(String::new, |kafka| kafka.to_string());
    print(&format!(
        "tidings is up: Kafka at {kafka}, HTTP at http://{}, data in {}\n\
         playing {what}: {} flights from New York, {} events\n",
        platform.http_address(),
        args.data_dir.display(),
        thousands(flights),
        thousands(events),
    ))
}

fn bar(events: u64, name: &'static str) -> ProgressBar {
    let template = "{msg:>9} {bar:40} {human_pos:>9} of {human_len} {rate:>11} {elapsed:>5}";
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // Writing to the line in memory cannot fail.
        let _written = write!(text, "{}/s", thousands(state.per_sec() as u64));
    };
    // The template is a constant; were it wrong, the plain bar would do.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(events).with_style(style.with_key("rate", rate)).with_message(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tidings demo --rate 100` gave up after its own two minutes.
    #[test]
    fn a_slow_demo_has_the_time_that_it_takes() {
        assert_eq!(time_limit(false, None, 36_534), SAMPLE_TIME_LIMIT);
        assert_eq!(time_limit(false, Some(100), 36_534), SAMPLE_TIME_LIMIT + Duration::from_secs(366));
        assert_eq!(time_limit(true, Some(1), 1_000_000), FULL_TIME_LIMIT + Duration::from_secs(1_000_000));
    }
}
