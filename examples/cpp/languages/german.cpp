#include "../language.hpp"

static Language german("German", R"(
Der Zug am Morgen hatte wieder Verspätung, also warteten wir auf dem Bahnsteig
und sprachen über das Wetter. Als er endlich kam, war kaum noch ein Platz frei,
und die meisten Leute mussten bis in die Stadt stehen. Mein Bruder arbeitet dort
in einem kleinen Laden, der Landkarten und alte Bücher verkauft. Er sagt, dass
er sie lieber liest als verkauft, und deshalb ist er damit nie reich geworden.
Nach dem Mittagessen gingen wir am Fluss spazieren, wo Kinder den Enten Brot
zuwarfen und jemand Geige spielte. Ich habe immer gedacht, dass ein guter Tag
so sein sollte: Es geschieht nicht viel, und man erinnert sich noch jahrelang
daran. Am Abend begann es zu regnen, und wir liefen lachend durch die leeren
Straßen nach Hause. Wenn du wissen willst, wie die Geschichte ausgeht, musst du
schon selbst kommen und nachsehen. Können Sie mir sagen, wann die Bibliothek
öffnet und ob es für die Vorstellung am Samstag noch Karten gibt? Sie wohnt bei
ihren Eltern, seit sie vom Land in ein Haus in der Nähe des Meeres gezogen sind.
)");
