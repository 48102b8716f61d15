r"""Tongues: the obvious words for the five things in Spanish, French, German, Portuguese, Italian and Dutch.

In:   a folded reading and its tokens. Out: the families that it speaks of in one of these languages.
May import: the standard library. Must not know: disguises, arguments, roles.
Why so few: what an agent is told in one of these languages it understands, so the plain verb must count; but each further word is
a near miss in some other language (`wissen` wipes in Dutch and knows in German, `suppression` is English, `borrado` also blurred).
A word that says two things counts only beside what it is done to. Folded: no accents, `ß` as `ss`; umlauts plain or as `oe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["foreign"]

_DELETE = (
    # Spanish and Portuguese; `excluir` and `apagar` are below, `cancelar` is to cancel.
    "borra eliminar eliminarlo eliminarla eliminarlos eliminarlas elimine eliminen elimina eliminad eliminalo eliminala "
    "eliminalos eliminalas eliminando eliminados eliminadas eliminacion eliminacao eliminem "
    "borrar borrarlo borrarla borrarlos borrarlas borre borren "
    "borralo borrala borralos borrad borrando borramos suprimir suprima suprimirlo destruir destruya exclusao "
    # French: `suppression` is English too, and so is `efface`.
    "supprimer supprime supprimes supprimez supprimons supprimee supprimees effacer effacez effacement detruire detruisez "
    # German
    "loschen losche loscht geloscht loschung loschungen loeschen loesche loescht geloescht loeschung geloschten loschauftrag "
    "zerstoren zerstoere zerstore vernichten "
    # Italian: `eliminate` is English too.
    "eliminare eliminarlo eliminarli eliminiamo eliminato eliminata eliminati cancellare cancella cancellate cancellato "
    "cancellata cancellati cancellarlo cancellarli cancellazione distruggere distruggi "
    # Dutch
    "verwijder verwijderen verwijdert verwijderd verwijderde verwijdering vernietigen vernietig wegwissen"
)
_BILLING = (
    "facturacion facturar facturen factura facturas facture facturer facturez facturation facturations facturado faturar fature "
    "fatura faturas faturamento fattura fatture fatturare fatturazione factuur factureren facturering facturatie factuurnummer "
    "rechnung rechnungen abrechnung abrechnungen rechnungsstellung rechnungslauf fakturieren fakturierung "
    "reembolso reembolsos reembolsar reembolse rembourser remboursez remboursement remboursements rimborso rimborsi rimborsare "
    "ruckerstattung ruckerstattungen rueckerstattung erstattung terugbetaling terugbetalen"
)
_PRODUCTION = (
    "produccion producao produzione productie productieomgeving productieserver produktionssystem produktionsumgebung "
    "produktionsserver produktivsystem produktivumgebung produktivbetrieb produktivserver produktionsdaten productieservers"
)
_DEPLOY = (
    "desplegar desplegarlo desplegarla despliegue despliegues despliega desplieguen desplegamos deploiement deploiements deploie deploies "
    "ausrollen ausgerollt ausrollt produktivsetzung inbetriebnahme uitrollen uitrol uitgerold uitrolt implantacao"
)
_PLAIN: dict[str, str] = {
    **dict.fromkeys(_DELETE.split(), "delete"),
    **dict.fromkeys(_BILLING.split(), "billing"),
    **dict.fromkeys(_PRODUCTION.split(), "production"),
    **dict.fromkeys(_DEPLOY.split(), "deploy"),
    **dict.fromkeys(("gegevensbank", "gegevensbanken"), "database"),
}
# What a word is taken for in another sense, close to it.
_OTHERWISE = {
    "rechnung": re.compile(r"\b(?:trage|tragen|tragt|trug|getragen|eigene)\b"),
    **dict.fromkeys(
        ("desplegar", "despliega", "deploie", "ausrollen", "ausgerollt", "uitrollen", "uitgerold"),
        re.compile(r"\b(?:menu|lista|panel|teig|teppich|deeg|tapijt|matte|bandera)\b"),
    ),
    **dict.fromkeys(
        ("loschen", "geloscht", "loeschen", "losche"),
        re.compile(r"\b(?:feuer|durst|brand|brande|licht|kerzen?|flammen?)\b"),
    ),
    **dict.fromkeys(("vernichten", "vernietigen"), re.compile(r"\b(?:unkraut|onkruid)\b")),
}
_THEM = r"(?:os|as|o|todos|todas|tudo|este|esta|estes|estas|esse|essa|qualquer)"
_PHRASES: dict[str, tuple[str, re.Pattern[str]]] = {
    **dict.fromkeys(
        ("datos", "dados", "donnees", "dati"),
        (
            "database",
            re.compile(
                r"(?<![a-z])(?:bases?[\s\x01]+(?:de[\s\x01]+|di[\s\x01]+)?|banc[oa]s?[\s\x01]+(?:de[\s\x01]+)?)(?:datos|dados|donnees|dati)\b"
            ),
        ),
    ),
    **dict.fromkeys(("excluir", "exclua", "excluam"), ("delete", re.compile(rf"\bexclu(?:ir|a|am)[\s\x01]+{_THEM}\b"))),
    **dict.fromkeys(
        ("apagar", "apague", "apaguem"),
        (
            "delete",
            re.compile(
                r"\bapag(?:ar|uem?)[\s\x01]+(?:os|as|o|todos[\s\x01]+os|todas[\s\x01]+as|tudo|este|esse|essa)\b"
            ),
        ),
    ),
    "suppression": ("delete", re.compile(r"\bsuppression[\s\x01]+(?:des?\b|du\b|d')")),
    "efface": ("delete", re.compile(r"\befface[\s\x01]+(?:les?|la|tou[st]|toutes)\b")),
    "eliminate": ("delete", re.compile(r"\beliminate[\s\x01]+(?:tutt[ei]|il|lo|gli|le|quest[aeio])\b")),
    "implantar": ("deploy", re.compile(r"\bimplantar[\s\x01]+(?:a|o|as|os|em|no|na)[\s\x01]")),
    **dict.fromkeys(
        ("borrado", "borrados"),
        (
            "delete",
            re.compile(r"\b(?:el|un|del|al)[\s\x01]+borrado\b|\b(?:ser|sean|sea|seran|sido)[\s\x01]+borrad[oa]s?\b"),
        ),
    ),
    **dict.fromkeys(
        ("produktive", "produktiven", "produktives"),
        ("production", re.compile(r"\bproduktive[nms]?[\s\x01]+(?:system|umgebung|server|daten|cluster|instanz)")),
    ),
    "produktion": (
        "production",
        re.compile(
            r"\b(?:in|auf|nach|gegen)[\s\x01]+(?:der[\s\x01]+|die[\s\x01]+)?produktion\b|produktion[\s\x01]+(?:neu|deploy)"
        ),
    ),
    **dict.fromkeys(
        ("wis", "gewist"),
        (
            "delete",
            re.compile(r"\bwis[\s\x01]+(?:alle|de|het|alles|deze|die|oude)\b|\b(?:worden|is|zijn)[\s\x01]+gewist\b"),
        ),
    ),
}


def foreign(text: str, tokens: frozenset[str]) -> Iterator[str]:
    """Name the families that a text speaks of in another language than English.

    Args:
        text: a folded reading of prose.
        tokens: its runs of letters and digits.
    """
    for token in tokens & _PLAIN.keys():
        other = _OTHERWISE.get(token)
        if other is None or not _means(text, token, other):
            yield _PLAIN[token]
    for token in tokens & _PHRASES.keys():
        word, pattern = _PHRASES[token]
        if pattern.search(text):
            yield word
    if "datenbank" in text:
        yield "database"


def _means(text: str, token: str, other: re.Pattern[str]) -> bool:
    """Whether every place of `token` has the other sense within a few words of it."""
    return all(
        other.search(text[max(0, found.start() - 48) : found.end() + 48])
        for found in re.finditer(rf"\b{token}\b", text)
    )
