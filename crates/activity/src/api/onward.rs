//! Work that goes on when nobody waits for it any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that is brought to its end as a task of its own if it is dropped before. While somebody waits it costs no
/// task, whose wake-ups would be most of what a small request takes.
pub struct Onward<F: Future<Output: Send> + Send + 'static> {
    rest: Option<Pin<Box<F>>>,
}

impl<F: Future<Output: Send> + Send + 'static> Onward<F> {
    pub fn new(work: F) -> Self {
        Self { rest: Some(Box::pin(work)) }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Onward<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let work = self.rest.as_mut().expect("polled after its end");
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.rest = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Onward<F> {
    fn drop(&mut self) {
        // Without a runtime the program ends.
        if let (Some(rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_rest_is_done_without_the_caller() {
        let (go, gone) = oneshot::channel::<u8>();
        let (tell, told) = oneshot::channel();
        let work = Onward::new(async move {
            let number = gone.await.unwrap();
            tell.send(number).unwrap();
        });
        tokio::time::timeout(Duration::from_millis(1), work).await.unwrap_err();
        go.send(7).unwrap();
        assert_eq!(told.await.unwrap(), 7);
        assert_eq!(Onward::new(async { 8 }).await, 8);
    }
}
