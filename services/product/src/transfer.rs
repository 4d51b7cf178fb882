//! Import and export: a file arrives and leaves in pieces, and the catalogue is read and written in
//! batches, so that neither is ever in memory as a whole.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use kernel::{Currency, Invalid};

use crate::{
    config::TransferConfig,
    csv::{
        export::Exporter,
        import::{Group, Grouper, Layout, Refusal},
        parser::{Limits, NotUtf8, Parser, Record},
    },
    error::Error,
    store::{Origin, Store},
};

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Products that are new.
    pub created: u32,
    /// Products that changed.
    pub updated: u32,
    /// Products that were already so.
    pub unchanged: u32,
    /// The first of the rows that were refused, in file order.
    pub refused: Vec<Refusal>,
    /// How many rows were refused in all.
    pub refused_count: u32,
}

/// Reads a file and merges it into the catalogue, batch by batch; a file that turns out to be too
/// large or no text after some batches leaves these in place, and is simply imported again.
pub async fn import(
    store: &dyn Store,
    config: &TransferConfig,
    origin: &Origin,
    currency: Currency,
    pieces: impl Stream<Item = Result<Bytes, Error>>,
) -> Result<Report, Error> {
    let mut import = Import::new(store, config, origin, currency);
    let mut pieces = std::pin::pin!(pieces);
    while let Some(piece) = pieces.next().await {
        import.piece(&piece?).await?;
    }
    import.finish().await
}

struct Import<'a> {
    store: &'a dyn Store,
    config: &'a TransferConfig,
    origin: &'a Origin,
    currency: Currency,
    parser: Parser,
    grouper: Option<Grouper>,
    batch: Vec<Group>,
    batch_rows: usize,
    refused: Vec<Refusal>,
    report: Report,
    bytes: u64,
    rows: u64,
}

impl<'a> Import<'a> {
    fn new(
        store: &'a dyn Store,
        config: &'a TransferConfig,
        origin: &'a Origin,
        currency: Currency,
    ) -> Self {
        let limits = Limits {
            field_bytes_max: config.field_bytes_max,
            fields_max: config.columns_max,
        };
        Self {
            store,
            config,
            origin,
            currency,
            parser: Parser::new(limits),
            grouper: None,
            batch: Vec::new(),
            batch_rows: 0,
            refused: Vec::new(),
            report: Report::default(),
            bytes: 0,
            rows: 0,
        }
    }

    async fn piece(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.config.file_bytes_max {
            let reason = format!("is larger than {} bytes", self.config.file_bytes_max);
            return Err(Error::invalid("file", reason));
        }
        let mut records = Vec::new();
        self.parser.push(piece, &mut records).map_err(not_utf8)?;
        self.records(records).await
    }

    async fn records(&mut self, records: Vec<Record>) -> Result<(), Error> {
        for record in records {
            let Some(grouper) = &mut self.grouper else {
                let layout = Layout::parse(&record)?;
                self.store.note_columns(layout.names()).await?;
                self.grouper = Some(Grouper::new(layout, self.currency));
                continue;
            };
            self.rows += 1;
            if self.rows > self.config.rows_max {
                let reason = format!("has more than {} rows", self.config.rows_max);
                return Err(Error::invalid("file", reason));
            }
            self.batch_rows += 1;
            self.batch.extend(grouper.push(record, &mut self.refused));
            if self.batch_rows >= self.config.batch_rows {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.batch_rows = 0;
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            let imported = self.store.import(self.origin, &batch).await?;
            self.report.created += imported.created;
            self.report.updated += imported.updated;
            self.report.unchanged += imported.unchanged;
            self.refused.extend(imported.refused);
        }
        let refused = std::mem::take(&mut self.refused);
        self.report.refused_count += u32::try_from(refused.len()).unwrap_or(u32::MAX);
        self.report.refused.extend(refused);
        self.report.refused.sort_by_key(|refusal| refusal.line);
        self.report.refused.truncate(self.config.refused_max);
        Ok(())
    }

    async fn finish(mut self) -> Result<Report, Error> {
        let mut records = Vec::new();
        let limits = Limits {
            field_bytes_max: 0,
            fields_max: 0,
        };
        let parser = std::mem::replace(&mut self.parser, Parser::new(limits));
        parser.finish(&mut records).map_err(not_utf8)?;
        self.records(records).await?;
        let Some(grouper) = self.grouper.take() else {
            return Err(Error::invalid(
                "file",
                "is empty; its first line must name the columns",
            ));
        };
        self.batch.extend(grouper.finish());
        self.flush().await?;
        Ok(self.report)
    }
}

fn not_utf8(error: NotUtf8) -> Error {
    Error::Invalid(vec![Invalid::new("file", error.to_string())])
}

/// A file on its way out, in pieces of at most `piece_bytes_max`.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Writes the catalogue as a file, oldest product first. Products that change while it is written
/// may be in it as they were or as they are.
pub async fn export(
    store: Arc<dyn Store>,
    config: &TransferConfig,
    currency: Currency,
    drop_other_prices: bool,
) -> Result<Pieces, Error> {
    let columns = store.export_columns(currency, drop_other_prices).await?;
    let exporter = Exporter::new(&columns, currency);
    let mut header = Vec::new();
    exporter.header(&mut header);
    let state = Export {
        store,
        exporter,
        pieces: cut(header, config.piece_bytes_max),
        after_seq: 0,
        page_products: config.page_products,
        piece_bytes_max: config.piece_bytes_max,
        done: false,
    };
    Ok(Box::pin(stream::try_unfold(
        state,
        |mut state| async move { Ok(state.next().await?.map(|piece| (piece, state))) },
    )))
}

struct Export {
    store: Arc<dyn Store>,
    exporter: Exporter,
    pieces: VecDeque<Bytes>,
    after_seq: i64,
    page_products: usize,
    piece_bytes_max: usize,
    done: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.pieces.is_empty() && !self.done {
            let page = self
                .store
                .export(self.after_seq, self.page_products)
                .await?;
            self.done = page.len() < self.page_products;
            let mut rows = Vec::new();
            for exported in &page {
                self.exporter
                    .product(&mut rows, &exported.product, &exported.on_hand);
                self.after_seq = exported.seq;
            }
            self.pieces = cut(rows, self.piece_bytes_max);
        }
        Ok(self.pieces.pop_front())
    }
}

fn cut(bytes: Vec<u8>, piece_bytes_max: usize) -> VecDeque<Bytes> {
    let mut rest = Bytes::from(bytes);
    let mut pieces = VecDeque::new();
    while !rest.is_empty() {
        pieces.push_back(rest.split_to(rest.len().min(piece_bytes_max.max(1))));
    }
    pieces
}
