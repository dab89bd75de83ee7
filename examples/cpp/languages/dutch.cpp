#include "../language.hpp"

static Language dutch("Dutch", R"(
De trein van vanochtend had alweer vertraging, dus stonden we op het perron te
wachten en praatten we over het weer. Toen hij eindelijk kwam, was er bijna geen
plaats meer vrij, en de meeste mensen moesten tot in de stad blijven staan. Mijn
broer werkt daar in een kleine winkel die kaarten en oude boeken verkoopt. Hij
zegt dat hij ze liever leest dan verkoopt, en daarom is hij er nooit rijk mee
geworden. Na het eten wandelden we langs de rivier, waar kinderen brood naar de
eenden gooiden en iemand viool speelde. Ik heb altijd gedacht dat een goede dag
zo hoort te zijn: er gebeurt niet veel, en je herinnert het je nog jaren. In de
avond begon het te regenen en liepen we lachend door de lege straten naar huis.
Als je wilt weten hoe het verhaal afloopt, moet je zelf maar komen kijken. Kunt
u mij zeggen hoe laat de bibliotheek opengaat en of er nog kaartjes zijn voor de
voorstelling van zaterdag? Zij woont bij haar ouders sinds die van het
platteland naar een huis dicht bij de zee zijn verhuisd.
)");
