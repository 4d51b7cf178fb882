//! The contract's messages and the domain's values: reads requests, asks the store, answers. No decisions.

use std::sync::Arc;

use chassis::{Answer, Call, Error};
use kernel::WidgetId;
use mesh_runtime::Clock;
use proto::commerce::widget::v1::{self as pb, widget_service_server::WidgetService};
use tonic::{Request, Response, Status};

use crate::{store::Store, widget::Draft};

/// The `domain` of every `google.rpc.ErrorInfo` of this service.
const DOMAIN: &str = "widget.commerce";
const CREATE: &str = "/commerce.widget.v1.WidgetService/CreateWidget";

/// What serves the RPCs.
pub(crate) struct Api {
    store: Arc<dyn Store>,
    clock: Clock,
}

impl Api {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock }
    }

    async fn create(&self, request: &pb::CreateWidgetRequest) -> Result<Answer<pb::Widget>, Error> {
        let now_us = self.clock.now_us();
        let call = Call::of(CREATE, request, |request| &mut request.request_id, now_us)?;
        let Some(widget) = &request.widget else {
            return Err(Error::invalid("widget", "must be set"));
        };
        let draft = Draft::parse(&widget.name, &widget.product_id)?;
        self.store.create(&call, &draft).await
    }

    async fn get(&self, id: &str) -> Result<pb::Widget, Error> {
        let id = WidgetId::parse(id).map_err(|error| Error::invalid("id", error))?;
        self.store.get(id).await
    }
}

#[tonic::async_trait]
impl WidgetService for Api {
    async fn create_widget(
        &self,
        request: Request<pb::CreateWidgetRequest>,
    ) -> Result<Response<pb::CreateWidgetResponse>, Status> {
        let created = self.create(request.get_ref()).await;
        let created = created.map_err(|error| error.status(DOMAIN))?;
        Ok(created.into_response(|widget| pb::CreateWidgetResponse {
            widget: Some(widget),
        }))
    }

    async fn get_widget(
        &self,
        request: Request<pb::GetWidgetRequest>,
    ) -> Result<Response<pb::GetWidgetResponse>, Status> {
        let found = self.get(&request.get_ref().id).await;
        let widget = Some(found.map_err(|error| error.status(DOMAIN))?);
        Ok(Response::new(pb::GetWidgetResponse { widget }))
    }
}
