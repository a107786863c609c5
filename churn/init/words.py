"""Words in names of columns and in cells, in the languages of typical exports.

A word is evidence in addition to the values; it does not decide against them.
`word` matches a whole token, `word*` its beginning, `*word` its end.
"""

import re
import unicodedata
from functools import lru_cache

CUSTOMER = (
    "customer* client* cust custid user* userid account* acct member* subscriber* buyer* shopper* household*"
    " kunde* *kunde kund kundnr konto* abonn* utilisateur* usuario* visitor* player* patient* donor* guest*"
    " msisdn policyholder* policy* employee* cardholder* klant* asiakas* panelist* loyalty* tenant*"
    " workspace* company* organi* org mandant* teilnehmer* mitglied* versicher* klient* uid person* socio*"
    " adherent* acheteur* phone* telefon* empleado* mitarbeiter*"
)
IDENTIFIER = (
    "id ids no nr num number* nummer* *nummer *nr key uuid guid identifier* ref reference* numero* code"
    " matricule* kennung* clientnum custid userid customerid clientid accountid memberid orderid"
    " invoiceid transactionid txnid productid itemid storeid sessionid cardid personid playerid"
    " subscriberid employeeid"
)
ORDER = (
    "order* invoice* transaction* trans trx txn basket* receipt* bestell* *bestellung rechnung* factur*"
    " commande* beleg* bon ticket* pedido* checkout* purchase* auftrag* ordine* sale* compra* booking*"
    " buchung* cart bill document* voucher* quittung* *beleg"
)
PRODUCT = (
    "product* item* sku stock* article* artikel* produkt* produit* producto* description* bezeichnung*"
    " beschreibung* category* kategorie* isbn ean asin store* shop filiale* warehouse* department* country*"
    " land city region* session* event* device* seller* vendor* staff* cashier* campaign* coupon*"
    " supplier* brand* line position* libelle* name"
)
TIME = (
    "date* *date *datum datum* time* *time timestamp* at ts day tag month* monat* mois mes jour fecha* zeit*"
    " *zeit when heure hora data dt created* ordered* purchased* placed* paid bestellt* week* period* *dt"
    " event_time year* zeitpunkt* occurred* logged* posted* booked*"
)
OTHER_TIME = (
    "birth* dob geburt* naissance* nacimiento* ship* deliver* liefer* due expir* return* update* modified*"
    " end* stop* cancel* close* churn* start* signup* sign registr* join* since last first faellig*"
    " livraison* born hire* renew* valid* load* ingest* approv* carrier* estimat*"
)
SNAPSHOT = (
    "snapshot* asof as observ* reference* month* monat* mois mes period* reporting* report* stichtag*"
    " date* datum* cutoff* week* quarter* date *month *date"
)
AMOUNT = (
    "amount* *amount total* *total value* revenue* sales umsatz* betrag* *betrag montant* importe* paid"
    " payment* spend* spent* gmv net gross netto* brutto* sum summe* gesamt* valor* totale* charge* turnover*"
    " subtotal* price* preis* *preis prix* precio* *price cost* kosten* dollar* euro* usd eur gbp mrr fee*"
    " income* proceeds* bedrag* ca amt *amt"
)
TOTAL = (
    "amount* *amount total* *total revenue* sales umsatz* betrag* *betrag montant* importe* paid payment*"
    " spend* spent* gmv sum summe* gesamt* totale* turnover* valor* bedrag* amt *amt dollar* gross netto*"
    " brutto* ca"
)
UNIT = "unit* einzel* stuck* each unitaire* unitario* per je *einzelpreis stueck*"
NOT_AMOUNT = (
    "method* type* mode* days id tax* vat mwst* discount* rabatt* remise* percent* pct rate rating*"
    " score* shipping* freight* versand* profit* margin* balance* saldo* lat lon latitude* longitude*"
    " age distance* weight* tip tva iva quantity* qty margen* credit* limit* points* fee*"
)
MEASURE = (
    "age alter edad year* years months tenure* income* salary score* rating* minutes calls days hours sites"
    " level* size* count height weight* distance* num number_of* children* dependents* balance* visits clicks"
)
"""Words for numbers that measure something, and are not identifiers."""
QUANTITY = (
    "quantity* qty menge* anzahl* stuck* units items count quantite* cantidad* pieces pcs number_of* volume*"
    " qte nb stueckzahl* aantal* *menge *anzahl cds packs"
)
STATUS = "status* state* zustand* etat* estado* type* art kind outcome* result* cancel* return* refund* void*"
STRONG_TARGET = (
    "churn* *churn attrit* attrition* exited cancel* storn* unsubscrib* terminat* leaver* left leave leaving"
    " kundig* gekundig* kuendig* gekuendig* abgewander* abwander* resil* desabonn* baja abandon* fuga* lapsed"
    " defect* quit* verloop* perdido* discontinu* deactivat* lost departed opzegging* lapse dropout* exit"
    " attrited"
)
WEAK_TARGET = (
    "target* label* class y outcome* status* state* response* flag active* inactive* retain* retention*"
    " stayed renew* closed aktiv* actif* activo* estado* etat* loyal* result* zustand* event survived* stay"
    " lifecycle*"
)
INVERSE = (
    "subscriber* subscribed* member* current* active* retain* retention* stayed stay renew* aktiv* actif*"
    " activo* loyal* survived* bestand*"
)
NOT_TARGET = "marital* gender sex employment* reason* method* region* country* score* probab* predicted*"
REVEALS = (
    "churn* *churn attrit* cancel* storn* leaver* kundig* gekundig* kuendig* gekuendig* abwander* resil*"
    " terminat* exit exited unsubscrib* deactivat* opzeg*"
)
PERSONAL = (
    "email* mail e-mail phone* mobile* telefon* tel handy* fax address* adresse* anschrift* street* strasse*"
    " *strasse rue calle direccion* surname* lastname* firstname* fullname* vorname* nachname* prenom* nom"
    " apellido* nombre* ssn iban passport* ip nachname* username* geburtsname* *adresse nif dni"
)
NAME_WORDS = (
    "name first last full user customer client sur family given middle nick member employee person contact"
    " patient holder account kunde kunden* mitarbeiter* owner buyer guest"
)
CODE = (
    "code* *code zip zipcode* postal* postcode* plz *plz cp type* class* category* region* branch* segment*"
    " group* gruppe* area cluster* sic naics channel* level_id"
)
END_DATE = (
    "end* *end cancel* close* closed terminat* churn* exit* leave* left stop* ende* fin kundig* kuendig*"
)


def word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TOTALS = word_set(
    "total totals summe gesamt gesamtsumme sum somme totale suma grandtotal итого totaal endsumme subtotal"
    " totalgeneral gesamtbetrag montanttotal"
)

CHURNED = word_set(
    "churned churn churner cancelled canceled cancel left exited exit attrited closed inactive terminated"
    " lost gone gekundigt kundigung gekuendigt inaktiv abgewandert resilie resiliee perdu parti inactif baja"
    " inactivo cancelado cancelada perdido cerrado quit leaver lapsed unsubscribed deactivated expired"
    " attrition leave departed disconnected ended storniert opgezegd inactiva annule wechsler"
)
STAYED = word_set(
    "stayed stay existing active retained current loyal open aktiv bestand bestandskunde actif active activo"
    " activa subscribed renewed paying enrolled kept customer stays remain remained nonchurned notchurned"
    " nochurn retain employed present actief live continuing abonne"
)
UNDECIDED = word_set(
    "joined new trial trialing pending unknown neu neukunde nouveau nuevo prospect onboarding joiner"
    " undecided na none"
)
YES = word_set("yes y true true. t 1 1.0 ja j oui o si s sim x wahr vrai verdadero")
NO = word_set("no n false false. f 0 0.0 nein non nee nao - falsch faux falso")
CANCELLED = (
    "cancel* annul* storn* void* fail* declin* reject* refund* chargeback* return* reversed* reversal*"
    " retour* ruckgab* rueckgab* erstatt* rembours* devuelt* devol* reembols* unpaid aborted abandoned"
    " fraud* geannuleerd* kreditier* gutschrift* avoir denied error"
)
BOUGHT = (
    "purchase* bought buy order ordered* transaction* sale sold kauf* achat* compra* checkout* payment* paid"
)
BROWSED = (
    "view* cart* click* remove* login* logout* visit* search* browse* wishlist* impression* page* add* open*"
    " refund*"
)
DONE = "complet* success* ship* deliver* paid closed done fulfilled approved ok settled bezahlt* payed livre*"
SQL = word_set(
    "all analyze and any array as asc between both by case cast check collate column constraint create"
    " cross current_date current_time current_user date default desc describe distinct do else end"
    " exists false fetch for foreign from full glob grant group having in index initially inner interval"
    " into is join lambda lateral leading left like limit map natural not null offset on only or order"
    " outer pivot placing primary qualify references returning right select session_user show some"
    " struct summarize symmetric table then time timestamp to trailing true union unique unpivot user"
    " using values variadic when where window with"
)
"""Words that are not allowed as a column name without quotes."""
DESCRIBES_PERSON = re.compile(r"^[^@\s]+@[^@\s]+\.\w+$")


def folded(text: str) -> str:
    """The text in lower case without accents: `Straße` is `strasse`, `Kündigung` is `kundigung`."""
    return without_accents(text.casefold())


def without_accents(text: str) -> str:
    """`Âge` is `Age`, `Straße` is `Strasse`; letters of other alphabets are not changed."""
    decomposed = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("ø", "o").replace("æ", "ae"))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


@lru_cache(maxsize=4096)
def tokens(name: str) -> tuple[str, ...]:
    """`InvoiceDate`, `invoice_date` and `Invoice Date` are (invoice, date)."""
    spaced = re.sub(r"(?<=[a-zà-ÿ0-9])(?=[A-ZÀ-Þ])|(?<=[A-ZÀ-Þ])(?=[A-ZÀ-Þ][a-zà-ÿ])", " ", name)
    return tuple(re.findall(r"[^\W_]+", folded(spaced)))


def mentions(name: str, vocabulary: str) -> bool:
    """Whether one of the name's words is in the vocabulary."""
    return any(_matcher(vocabulary).fullmatch(token) for token in tokens(name))


def plain(value: str) -> str:
    """A cell as a word to compare: `Non-churned` is `nonchurned`."""
    return re.sub(r"[\s_-]+", "", folded(value.strip()))


def value_in(value: str, known: frozenset[str]) -> bool:
    """Whether the cell is one of the words, as a whole or, with two or three words, by its first word."""
    words = tokens(value)
    return plain(value) in known or (len(words) in (2, 3) and words[0] in known)


@lru_cache(maxsize=64)
def _matcher(vocabulary: str) -> re.Pattern[str]:
    words = [re.escape(word).replace(r"\*", r"\w*") for word in vocabulary.split()]
    return re.compile("|".join(words))
