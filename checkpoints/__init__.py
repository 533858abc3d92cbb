"""The bundled tiny vision-language model: the world it knows, and the recipe that trained it."""
