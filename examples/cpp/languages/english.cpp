#include "../language.hpp"

static Language english("English", R"(
The morning train was late again, so we waited on the platform and talked about
the weather. When it finally came, there was hardly a seat left, and most of the
people who got on had to stand all the way to the city. My brother works there
in a small shop that sells maps and old books. He says that he would rather read
them than sell them, which is why the business has never made him rich. After
lunch we walked along the river, where children were throwing bread to the ducks
and somebody was playing the violin. I have always thought that this is what a
good day should be: nothing much happens, and you remember it for years. In the
evening it began to rain, and we ran home laughing through the empty streets.
If you want to know how the story ends, you will have to come and see for
yourself. Could you tell me what time the library opens and whether there are
still tickets for the show on Saturday night? She has been living with her
parents since they moved from the country to a house near the sea.
)");
