//! Products and variants: what a valid one is, how a field mask changes one, when an etag is stale.
//!
//! Deliberately missing: stock and reservations (they change without the product changing), sales
//! (a projection of payments), uniqueness of SKUs and handles (only a store can know).

mod rules;

use std::collections::{BTreeMap, HashSet};

use kernel::{Invalid, Money, ProductId};

use crate::error::Error;

pub use rules::*;

/// Whether a product is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// On sale.
    Active,
    /// Being prepared.
    Draft,
    /// No longer sold.
    Archived,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Draft, Self::Archived];

    /// The name in the contract, in filters and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draft => "DRAFT",
            Self::Archived => "ARCHIVED",
        }
    }

    /// Reads [`Status::name`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A product as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// Its title.
    pub title: String,
    /// HTML, as it was given.
    pub description_html: String,
    /// Who makes it.
    pub vendor: String,
    /// What kind of thing it is.
    pub category: String,
    /// Its tags, in the order given.
    pub tags: Vec<String>,
    /// Whether it is sold.
    pub status: Status,
    /// Its name for URLs.
    pub handle: String,
    /// At least one.
    pub variants: Vec<Variant>,
    /// Rows of an imported file that describe the product but no variant (more images).
    pub extra_rows: Vec<ExtraRow>,
    /// Raised by one with every change; begins at 1.
    pub version: i64,
    /// When it was created.
    pub created_at_us: i64,
    /// When it was last changed.
    pub updated_at_us: i64,
    /// When it was deleted, while it is.
    pub deleted_at_us: Option<i64>,
}

/// One form in which a product is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Unique among all variants.
    pub sku: String,
    /// What sets it apart.
    pub options: Vec<VariantOption>,
    /// One a currency, by currency code.
    pub prices: Vec<Money>,
    /// Barcode (GTIN) or empty.
    pub barcode: String,
    /// Weight in grams.
    pub weight_grams: i32,
    /// Columns of an imported file that nothing here understands, kept to be given back.
    pub columns: BTreeMap<String, String>,
}

/// A named property of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantOption {
    /// Such as `Size`.
    pub name: String,
    /// Such as `L`.
    pub value: String,
}

/// A row of an imported file without a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraRow {
    /// How many variant rows stood before it.
    pub after: usize,
    /// Its columns, without empty ones.
    pub columns: BTreeMap<String, String>,
}

/// A product as a caller describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// See [`Product::title`].
    pub title: String,
    /// See [`Product::description_html`].
    pub description_html: String,
    /// See [`Product::vendor`].
    pub vendor: String,
    /// See [`Product::category`].
    pub category: String,
    /// See [`Product::tags`].
    pub tags: Vec<String>,
    /// `None`: active on create, unchanged on update.
    pub status: Option<Status>,
    /// Empty on create: made from the title.
    pub handle: String,
    /// See [`Product::variants`].
    pub variants: Vec<VariantDraft>,
}

/// A variant as a caller describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantDraft {
    /// The variant, without columns of a file.
    pub variant: Variant,
    /// What its stock starts with if it is new.
    pub initial_quantity: Option<i32>,
}

/// A field that an update can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// `title`
    Title,
    /// `description_html`
    DescriptionHtml,
    /// `vendor`
    Vendor,
    /// `category`
    Category,
    /// `tags`
    Tags,
    /// `status`
    Status,
    /// `handle`
    Handle,
    /// `variants`
    Variants,
}

impl Field {
    /// Every field, by its path in a mask.
    pub const ALL: [(&'static str, Self); 8] = [
        ("title", Self::Title),
        ("description_html", Self::DescriptionHtml),
        ("vendor", Self::Vendor),
        ("category", Self::Category),
        ("tags", Self::Tags),
        ("status", Self::Status),
        ("handle", Self::Handle),
        ("variants", Self::Variants),
    ];

    /// Reads the paths of a mask, naming the one that is not a field that can be changed.
    pub fn parse_mask(paths: &[String]) -> Result<Vec<Self>, Error> {
        let mut fields = Vec::new();
        let mut invalid = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            match Self::ALL.iter().find(|(name, _)| name == path) {
                Some((_, field)) if !fields.contains(field) => fields.push(*field),
                Some(_) => {}
                None => invalid.push(Invalid::new(
                    format!("update_mask.paths[{index}]"),
                    format!(
                        "`{}` is not a field that can be updated",
                        text_for_message(path)
                    ),
                )),
            }
        }
        if invalid.is_empty() {
            Ok(fields)
        } else {
            Err(Error::Invalid(invalid))
        }
    }
}

impl Product {
    /// A new product; refuses a draft with all that is wrong with it. The handle may be empty still
    /// (see [`handles`]).
    pub fn create(id: ProductId, draft: &Draft, now_us: i64) -> Result<Self, Error> {
        let mut product = Self {
            id,
            title: draft.title.clone(),
            description_html: draft.description_html.clone(),
            vendor: draft.vendor.clone(),
            category: draft.category.clone(),
            tags: draft.tags.clone(),
            status: draft.status.unwrap_or(Status::Active),
            handle: draft.handle.clone(),
            variants: draft
                .variants
                .iter()
                .map(|variant| variant.variant.clone())
                .collect(),
            extra_rows: Vec::new(),
            version: 1,
            created_at_us: now_us,
            updated_at_us: now_us,
            deleted_at_us: None,
        };
        let mut invalid = product.violations();
        if product.handle.is_empty() {
            invalid.retain(|violation| violation.field != "product.handle");
        }
        invalid.extend(quantity_violations(draft));
        product.sort_prices();
        if invalid.is_empty() {
            Ok(product)
        } else {
            Err(Error::Invalid(invalid))
        }
    }

    /// The product with the named fields taken from the draft; `None` when that changes nothing.
    pub fn update(
        &self,
        fields: &[Field],
        draft: &Draft,
        etag: &str,
        now_us: i64,
    ) -> Result<Option<Self>, Error> {
        self.guard(etag)?;
        if self.deleted_at_us.is_some() {
            return Err(self.in_wrong_state("deleted", "updated"));
        }
        let mut after = self.clone();
        let mut invalid = Vec::new();
        for field in fields {
            match field {
                Field::Title => after.title.clone_from(&draft.title),
                Field::DescriptionHtml => {
                    after.description_html.clone_from(&draft.description_html);
                }
                Field::Vendor => after.vendor.clone_from(&draft.vendor),
                Field::Category => after.category.clone_from(&draft.category),
                Field::Tags => after.tags.clone_from(&draft.tags),
                Field::Status => match draft.status {
                    Some(status) => after.status = status,
                    None => invalid.push(Invalid::new("product.status", "must be given")),
                },
                Field::Handle => after.handle.clone_from(&draft.handle),
                Field::Variants => {
                    after.variants = self.with_columns(&draft.variants);
                    invalid.extend(quantity_violations(draft));
                }
            }
        }
        invalid.extend(after.violations());
        if !invalid.is_empty() {
            return Err(Error::Invalid(invalid));
        }
        after.sort_prices(); // Only now: what is wrong names the places that the caller knows.
        Ok(self.changed(after, now_us))
    }

    /// The product as deleted.
    pub fn delete(&self, etag: &str, now_us: i64) -> Result<Self, Error> {
        self.guard(etag)?;
        if self.deleted_at_us.is_some() {
            return Err(self.in_wrong_state("deleted", "deleted"));
        }
        let mut after = self.raised(now_us);
        after.deleted_at_us = Some(now_us);
        Ok(after)
    }

    /// The product with its deletion taken back.
    pub fn undelete(&self, now_us: i64) -> Result<Self, Error> {
        if self.deleted_at_us.is_none() {
            return Err(self.in_wrong_state("not deleted", "undeleted"));
        }
        let mut after = self.raised(now_us);
        after.deleted_at_us = None;
        Ok(after)
    }

    /// `after` with version and time raised if it differs from this one, else `None`.
    pub fn changed(&self, mut after: Self, now_us: i64) -> Option<Self> {
        after.version = self.version;
        after.updated_at_us = self.updated_at_us;
        (after != *self).then(|| after.raised(now_us))
    }

    /// What a caller gives back to guard against lost updates: the version, opaque to them.
    pub fn etag(&self) -> String {
        format!("v{}", self.version)
    }

    /// Everything that is wrong with it, each with its field.
    pub fn violations(&self) -> Vec<Invalid> {
        let mut invalid = Invalids::default();
        invalid.take(check_title("product.title", &self.title));
        invalid.take(check_description(
            "product.description_html",
            &self.description_html,
        ));
        invalid.take(check_name("product.vendor", &self.vendor));
        invalid.take(check_name("product.category", &self.category));
        invalid.take(check_tags("product.tags", &self.tags));
        invalid.take(check_handle("product.handle", &self.handle));
        if self.variants.is_empty() {
            invalid.add("product.variants", "must have at least one variant");
        }
        if self.variants.len() > VARIANTS_MAX {
            invalid.add(
                "product.variants",
                format!("must have at most {VARIANTS_MAX} variants"),
            );
        }
        let mut skus = HashSet::new();
        for (index, variant) in self.variants.iter().enumerate().take(VARIANTS_MAX) {
            let at = format!("product.variants[{index}]");
            if !skus.insert(variant.sku.as_str()) {
                invalid.add(format!("{at}.sku"), "stands in another variant already");
            }
            variant.check(&at, &mut invalid);
        }
        invalid.0
    }

    fn sort_prices(&mut self) {
        for variant in &mut self.variants {
            variant.prices.sort_by_key(|price| price.currency().code());
        }
    }

    fn guard(&self, etag: &str) -> Result<(), Error> {
        if etag.is_empty() || etag == self.etag() {
            return Ok(());
        }
        Err(Error::EtagMismatch { id: self.id })
    }

    fn in_wrong_state(&self, state: &'static str, command: &'static str) -> Error {
        Error::InvalidState {
            resource: format!("product {}", self.id),
            state,
            command,
        }
    }

    fn raised(&self, now_us: i64) -> Self {
        let mut after = self.clone();
        after.version += 1;
        after.updated_at_us = now_us.max(self.updated_at_us);
        after
    }

    /// The drafted variants, each with the file columns that the variant of that SKU has.
    fn with_columns(&self, drafts: &[VariantDraft]) -> Vec<Variant> {
        let columns = |sku: &str| {
            let known = self.variants.iter().find(|variant| variant.sku == sku);
            known
                .map(|variant| variant.columns.clone())
                .unwrap_or_default()
        };
        drafts
            .iter()
            .map(|draft| Variant {
                columns: columns(&draft.variant.sku),
                ..draft.variant.clone()
            })
            .collect()
    }
}

impl Variant {
    /// The price in a currency.
    pub fn price(&self, currency: kernel::Currency) -> Option<Money> {
        self.prices
            .iter()
            .copied()
            .find(|price| price.currency() == currency)
    }

    /// Sets the price of its currency; prices stay sorted by currency code.
    pub fn set_price(&mut self, price: Money) {
        self.prices
            .retain(|other| other.currency() != price.currency());
        self.prices.push(price);
        self.prices.sort_by_key(|price| price.currency().code());
    }

    fn check(&self, at: &str, invalid: &mut Invalids) {
        invalid.take(check_sku(&format!("{at}.sku"), &self.sku));
        invalid.take(check_barcode(&format!("{at}.barcode"), &self.barcode));
        invalid.take(check_weight(
            &format!("{at}.weight_grams"),
            self.weight_grams,
        ));
        if self.options.len() > OPTIONS_MAX {
            invalid.add(
                format!("{at}.options"),
                format!("must be at most {OPTIONS_MAX}"),
            );
        }
        let mut names = HashSet::new();
        for (index, option) in self.options.iter().enumerate().take(OPTIONS_MAX) {
            let at = format!("{at}.options[{index}]");
            invalid.take(check_title(&format!("{at}.name"), &option.name));
            invalid.take(check_title(&format!("{at}.value"), &option.value));
            if !names.insert(option.name.as_str()) {
                invalid.add(format!("{at}.name"), "stands in another option already");
            }
        }
        if self.prices.is_empty() {
            invalid.add(format!("{at}.prices"), "must have at least one price");
        }
        if self.prices.len() > PRICES_MAX {
            invalid.add(
                format!("{at}.prices"),
                format!("must be at most {PRICES_MAX}"),
            );
        }
        let mut currencies = HashSet::new();
        for (index, price) in self.prices.iter().enumerate().take(PRICES_MAX) {
            if price.amount_minor() < 0 {
                invalid.add(
                    format!("{at}.prices[{index}].amount_minor"),
                    "must not be negative",
                );
            }
            if !currencies.insert(price.currency().code()) {
                let code = price.currency().code();
                invalid.add(
                    format!("{at}.prices[{index}].currency_code"),
                    format!("has a price in {code} already"),
                );
            }
        }
    }
}

/// Violations in the making.
#[derive(Default)]
struct Invalids(Vec<Invalid>);

impl Invalids {
    fn take(&mut self, checked: Result<(), Invalid>) {
        self.0.extend(checked.err());
    }

    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Invalid::new(field, reason));
    }
}

fn quantity_violations(draft: &Draft) -> Vec<Invalid> {
    let mut invalid = Invalids::default();
    for (index, variant) in draft.variants.iter().enumerate().take(VARIANTS_MAX) {
        if let Some(quantity) = variant.initial_quantity {
            let field = format!("product.variants[{index}].initial_quantity");
            invalid.take(check_initial_quantity(&field, quantity));
        }
    }
    invalid.0
}

/// A caller's text, short enough for a message.
fn text_for_message(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests;
