//! A small shop whose requests become activities: `cargo run -p tidings-tower --example orders [PORT] [PLATFORM]`, beside
//! `tidings up`.
//!
//! ```text
//! curl -X POST -H 'x-user: ada' 'localhost:3000/orders/17/pay?token=secret'
//! curl 'localhost:8080/api/v1/activities?tenant=acme'
//! ```

use std::time::Duration;

use axum::Router;
use axum::extract::MatchedPath;
use axum::routing::post;
use tidings_tower::{Activity, ActivityLayer, Recorder, RecorderOptions, RequestHead};

fn describe(request: RequestHead<'_>) -> Option<Activity> {
    let route = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let activity = Activity::new("acme", &request.action(route));
    // Requests of nobody are recorded, too.
    let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
    Some(activity.actor("user", user.unwrap_or_default()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().unwrap_or_else(|| "3000".to_owned());
    let platform = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let recorder = Recorder::start(&platform, RecorderOptions::default())?;
    let app = Router::new()
        .route("/orders/{order}/pay", post(|| async { "paid\n" }))
        .layer(ActivityLayer::new(recorder.clone(), describe));
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    // From here on an interrupt ends the service as it should end, whether it has served anybody or not.
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    println!("listening on http://{}", listener.local_addr()?);
    let ended = async move {
        interrupt.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(ended).await?;
    let left = recorder.close(Duration::from_secs(10)).await;
    println!("{:?}, {left} left behind", recorder.counts());
    Ok(())
}
